//! Every table computes what its formulas say, in `f64`, on odd sizes and extreme values.

use offramp_kernels::{AdamWStep, NormRow, Table, available, bf16};
use proptest::prelude::*;

/// Lengths around every lane count and tile edge.
fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..70, Just(127), Just(128), Just(255), Just(513)]
}

fn vector(len: usize) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-4.0f32..4.0, len)
}

fn vectors<const N: usize>() -> impl Strategy<Value = [Vec<f32>; N]> {
    length()
        .prop_flat_map(|len| prop::collection::vec(vector(len), N))
        .prop_map(|v| v.try_into().expect("N vectors"))
}

fn f64s(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

/// Equal to `tolerance` relative to the larger of 1 and the size of the terms.
#[track_caller]
fn close(table: &Table, what: &str, got: f32, expected: f64, size: f64, tolerance: f64) {
    let error = (f64::from(got) - expected).abs();
    let bound = tolerance * size.max(1.0);
    assert!(error <= bound, "{} {what}: {got} instead of {expected}, off by {error:e}", table.name);
}

fn sigmoid(z: f64) -> f64 {
    1.0 / (1.0 + (-z).exp())
}

proptest! {
    #[test]
    fn dots([a, b] in vectors()) {
        let terms: Vec<f64> = f64s(&a).iter().zip(f64s(&b)).map(|(a, b)| a * b).collect();
        let (sum, size) = (terms.iter().sum(), terms.iter().map(|t| t.abs()).sum());
        for table in available() {
            close(table, "dot", (table.dot)(&a, &b), sum, size, 1e-6);
        }
    }

    #[test]
    fn narrowing_is_that_of_ieee(bits in prop::collection::vec(any::<u32>(), 1..70)) {
        let x: Vec<f32> = bits.into_iter().map(f32::from_bits).collect();
        for table in available() {
            let mut out = vec![bf16::ZERO; x.len()];
            (table.narrow)(&x, &mut out);
            for (&x, out) in x.iter().zip(out) {
                prop_assert!(out.to_bits() == bf16::from_f32(x).to_bits(), "{} {x:e}: {out:e}", table.name);
            }
        }
    }

    #[test]
    fn sums_and_axpy([x, y] in vectors(), a in -3.0f32..3.0) {
        for table in available() {
            let squares: f64 = f64s(&x).iter().map(|x| x * x).sum();
            prop_assert!(((table.sum_of_squares)(&x) - squares).abs() <= 1e-12 * squares);
            let mut out = y.clone();
            (table.axpy)(a, &x, &mut out);
            for i in 0..x.len() {
                let expected = f64::from(a) * f64::from(x[i]) + f64::from(y[i]);
                close(table, "axpy", out[i], expected, 24.0, 1e-6);
            }
        }
    }

    #[test]
    fn rms_norm_and_its_gradient([x, weight, d_out] in vectors(), eps in 1e-6f32..1e-2) {
        let (xs, ws, ds) = (f64s(&x), f64s(&weight), f64s(&d_out));
        let n = xs.len() as f64;
        let inv = 1.0 / (xs.iter().map(|x| x * x).sum::<f64>() / n + f64::from(eps)).sqrt();
        let along: f64 = (0..xs.len()).map(|i| ws[i] * ds[i] * xs[i]).sum::<f64>() * inv * inv / n;
        for table in available() {
            let mut out = vec![0.0; x.len()];
            let inv_rms = (table.rms_norm)(&x, &weight, eps, &mut out);
            close(table, "1/rms", inv_rms, inv, inv, 1e-6);
            let (mut d_x, mut d_weight) = (vec![1.0; x.len()], vec![-1.0; x.len()]);
            let row = NormRow { x: &x, weight: &weight, inv_rms, d_out: &d_out };
            (table.rms_norm_backward)(row, &mut d_x, &mut d_weight);
            for i in 0..x.len() {
                close(table, "norm", out[i], xs[i] * inv * ws[i], inv * 16.0, 1e-6);
                close(table, "d_weight", d_weight[i], -1.0 + ds[i] * xs[i] * inv, inv * 16.0, 1e-6);
                let d = 1.0 + inv * (ws[i] * ds[i] - xs[i] * along);
                close(table, "d_x", d_x[i], d, inv * 64.0, 3e-6);
            }
        }
    }

    #[test]
    fn softmax_is_a_distribution_at_any_scale(
        x in length().prop_flat_map(vector),
        scale in prop_oneof![Just(0.0f32), Just(1.0), Just(30.0), Just(1e6)],
        shift in prop_oneof![Just(0.0f32), Just(1e4), Just(-1e4)],
    ) {
        let x: Vec<f32> = x.iter().map(|x| x * scale + shift).collect();
        let max = x.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(f64::from(x)));
        let total: f64 = f64s(&x).iter().map(|x| (x - max).exp()).sum();
        for table in available() {
            let mut out = x.clone();
            let log_sum_exp = (table.softmax)(&mut out);
            close(table, "log-sum-exp", log_sum_exp, max + total.ln(), max.abs(), 1e-6);
            for (got, x) in out.iter().zip(f64s(&x)) {
                close(table, "softmax", *got, (x - max).exp() / total, 1.0, 1e-6);
            }
        }
    }

    #[test]
    fn the_gradient_of_softmax([p, d, _] in vectors()) {
        let along: f64 = f64s(&p).iter().zip(f64s(&d)).map(|(p, d)| p * d).sum();
        let size: f64 = 16.0 + f64s(&p).iter().zip(f64s(&d)).map(|(p, d)| (p * d).abs()).sum::<f64>();
        for table in available() {
            let mut out = d.clone();
            (table.softmax_backward)(&p, &mut out);
            for ((got, &p), &d) in out.iter().zip(&p).zip(&d) {
                let (p, d) = (f64::from(p), f64::from(d));
                close(table, "d_scores", *got, p * (d - along), p.abs().max(1.0) * size, 1e-6);
            }
        }
    }

    #[test]
    fn silu_mul_and_its_gradient([gate, up, d_out] in vectors(), scale in prop_oneof![Just(1.0f32), Just(50.0)]) {
        let gate: Vec<f32> = gate.iter().map(|g| g * scale).collect();
        for table in available() {
            let mut out = vec![0.0; gate.len()];
            (table.silu_mul)(&gate, &up, &mut out);
            let (mut d_gate, mut d_up) = (gate.clone(), up.clone());
            (table.silu_mul_backward)(&mut d_gate, &mut d_up, &d_out);
            for i in 0..gate.len() {
                let (g, u, d) = (f64::from(gate[i]), f64::from(up[i]), f64::from(d_out[i]));
                let (s, size) = (sigmoid(g), 16.0 * g.abs().max(1.0));
                close(table, "silu", out[i], g * s * u, size, 1e-6);
                close(table, "d_up", d_up[i], d * g * s, size, 1e-6);
                close(table, "d_gate", d_gate[i], d * u * s * (1.0 + g * (1.0 - s)), size, 1e-6);
            }
        }
    }

    #[test]
    fn rope_turns_pairs_and_turns_back(half in 1usize..40, angle in -3.0f32..3.0) {
        let head: Vec<f32> = (0..2 * half).map(|i| (i as f32 * 0.7).sin()).collect();
        let cos: Vec<f32> = (0..half).map(|i| (angle * i as f32).cos()).collect();
        let sin: Vec<f32> = (0..half).map(|i| (angle * i as f32).sin()).collect();
        let back: Vec<f32> = sin.iter().map(|s| -s).collect();
        for table in available() {
            let mut out = head.clone();
            (table.rope)(&mut out, &cos, &sin);
            for i in 0..half {
                let (a, b) = (f64::from(head[i]), f64::from(head[i + half]));
                let (c, s) = (f64::from(cos[i]), f64::from(sin[i]));
                close(table, "first", out[i], a * c - b * s, 2.0, 1e-6);
                close(table, "second", out[i + half], b * c + a * s, 2.0, 1e-6);
            }
            (table.rope)(&mut out, &cos, &back);
            for i in 0..2 * half {
                close(table, "turned back", out[i], f64::from(head[i]), 1.0, 1e-6);
            }
        }
    }

    #[test]
    fn adamw_is_pytorchs_formula([param, grad] in vectors(), t in 1i32..1000) {
        let (lr, b1, b2, eps, wd, scale) = (1e-2, 0.9, 0.95, 1e-8, 0.1, 0.5);
        let (bias1, bias2) = (1.0 - f64::powi(b1, t), 1.0 - f64::powi(b2, t));
        let step = AdamWStep {
            lr: lr as f32, beta1: b1 as f32, beta2: b2 as f32, eps: eps as f32, weight_decay: wd as f32,
            bias1: bias1 as f32, bias2: bias2 as f32, grad_scale: scale as f32,
        };
        for table in available() {
            let (mut p, mut m, mut v) = (param.clone(), vec![0.1; grad.len()], vec![0.2; grad.len()]);
            (table.adamw)(&step, &mut p, &grad, &mut m, &mut v);
            for i in 0..grad.len() {
                let g = f64::from(grad[i]) * scale;
                let (em, ev) = (b1 * 0.1 + (1.0 - b1) * g, b2 * 0.2 + (1.0 - b2) * g * g);
                let update = lr * (em / bias1) / ((ev / bias2).sqrt() + eps);
                close(table, "m", m[i], em, 1.0, 1e-6);
                close(table, "v", v[i], ev, 1.0, 1e-6);
                close(table, "p", p[i], f64::from(param[i]) * (1.0 - lr * wd) - update, 4.0, 1e-6);
            }
        }
    }
}

#[test]
fn extreme_values_stay_what_they_are() {
    for table in available() {
        let mut one_winner = [-f32::MAX, f32::MAX, 0.0];
        assert_eq!((table.softmax)(&mut one_winner), f32::MAX, "{}", table.name);
        assert_eq!(one_winner, [0.0, 1.0, 0.0], "{}", table.name);

        let mut masked = [f32::NEG_INFINITY, 1.0, f32::NEG_INFINITY, 1.0];
        (table.softmax)(&mut masked);
        assert_eq!(masked, [0.0, 0.5, 0.0, 0.5], "{}", table.name);

        for bad in [f32::NAN, f32::INFINITY] {
            let mut row = vec![1.0; 40];
            row[33] = bad;
            assert!((table.softmax)(&mut row).is_nan(), "{} hides {bad}", table.name);
        }

        let gates = [-1e30, -200.0, -88.0, -0.0, 0.0, 88.0, 200.0, 1e30];
        let mut out = [0.0; 8];
        (table.silu_mul)(&gates, &[1.0; 8], &mut out);
        for (gate, out) in gates.iter().zip(out) {
            let expected = f64::from(*gate) * sigmoid(f64::from(*gate));
            close(table, "silu", out, expected, expected.abs(), 1e-6);
        }

        assert_eq!((table.dot)(&[f32::MAX, -f32::MAX], &[1.0; 2]), 0.0, "{}", table.name);
        assert_eq!(
            (table.dot)(&[f32::MIN_POSITIVE / 2.0], &[1.0]),
            f32::MIN_POSITIVE / 2.0,
            "{}",
            table.name
        );
    }
}
