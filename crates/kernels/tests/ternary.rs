//! Every table's ternary products are exact whole numbers times two steps, and its rows are quantized and
//! rotated as `bit_linear` says: on odd sizes, at the extremes, and bit for bit.

use offramp_kernels::bit_linear::{self, Activations};
use offramp_kernels::strips::STRIP;
use offramp_kernels::ternary::{InputQuantization, RowQuantizer, TernaryFactors, bytes, pack, strip_bytes};
use offramp_kernels::{ColumnsMut, Table, available};
use proptest::prelude::*;

const PLAIN: [InputQuantization; 2] = [InputQuantization::ALL[0], InputQuantization::ALL[2]];

fn width() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..140, Just(255), Just(513), Just(1030)]
}

/// −1 to 1.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn codes(len: usize, seed: u32) -> Vec<i8> {
    numbers(len, seed).into_iter().map(|x| (x * 1.49).round() as i8).collect()
}

fn packed(codes: &[i8], in_features: usize) -> Vec<u8> {
    let mut strips = vec![0xa5; bytes(codes.len() / in_features, in_features).expect("it fits")];
    let each = strips.chunks_mut(strip_bytes(in_features)).zip(codes.chunks(STRIP * in_features));
    each.for_each(|(strip, codes)| pack(codes, in_features, strip));
    strips
}

/// Tokens of `in_features` by a matrix of `rows`.
struct Product<'a> {
    x: &'a [f32],
    in_features: usize,
    strips: &'a [u8],
    rows: usize,
    step: f32,
}

impl Product<'_> {
    fn by(&self, table: &Table, input: InputQuantization) -> Vec<f32> {
        let Self { x, in_features, strips, rows, step } = *self;
        let mut quantizer = RowQuantizer::default();
        quantizer.quantize(table, input, x, in_features);
        let mut out = vec![f32::NAN; x.len() / in_features * rows];
        let factors = TernaryFactors { x: quantizer.tokens(), weight: strips, step };
        (table.product_ternary)(factors, ColumnsMut::new(&mut out, rows));
        out
    }

    /// Every element is what its formula says, to the last bit.
    #[track_caller]
    fn check(&self, weight: &[i8]) {
        let k = self.in_features;
        for (table, input) in available().into_iter().flat_map(|table| PLAIN.map(|input| (table, input))) {
            let out = self.by(table, input);
            for (x, out) in self.x.chunks(k).zip(out.chunks(self.rows)) {
                let mut row = vec![0; k];
                let step = bit_linear::quantize(input.activations, x, &mut row) * self.step;
                for (r, (&got, weight)) in out.iter().zip(weight.chunks(k)).enumerate() {
                    let sum: i64 = row.iter().zip(weight).map(|(&x, &w)| i64::from(x) * i64::from(w)).sum();
                    let what = format!("{} {input:?} row {r} of {}, {k} wide", table.name, self.rows);
                    assert_eq!(got.to_bits(), (sum as f32 * step).to_bits(), "{what}");
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn products((tokens, rows, k) in (1usize..=40, 1usize..80, width()), seed in any::<u32>()) {
        let (x, weight) = (numbers(tokens * k, seed), codes(rows * k, !seed));
        let strips = packed(&weight, k);
        Product { x: &x, in_features: k, strips: &strips, rows, step: 0.37 }.check(&weight);
    }

    #[test]
    fn rows_are_quantised_alike(k in width(), seed in any::<u32>(), magnitude in -44i32..38) {
        let x: Vec<f32> = numbers(k, seed).iter().map(|x| x * 10f32.powi(magnitude)).collect();
        for (table, activations) in available().into_iter().flat_map(|t| [(t, Activations::Int8), (t, Activations::Int4)]) {
            let (mut expected, mut found) = (vec![77; k], vec![78; k]);
            let step = bit_linear::quantize(activations, &x, &mut expected);
            let (found_step, sum) = (table.quantize_row)(activations, &x, &mut found);
            prop_assert_eq!(&found, &expected, "{} {:?}", table.name, activations);
            prop_assert_eq!(found_step.to_bits(), step.to_bits(), "{} {:?}", table.name, activations);
            prop_assert_eq!(sum, expected.iter().map(|&code| i32::from(code)).sum::<i32>());
        }
    }

    #[test]
    fn rows_are_rotated_alike(power in 0u32..13, seed in any::<u32>()) {
        let x = numbers(1 << power, seed);
        let mut expected = x.clone();
        bit_linear::hadamard(&mut expected);
        for table in available() {
            let mut found = x.clone();
            (table.hadamard)(&mut found);
            prop_assert_eq!(&found, &expected, "{}", table.name);
        }
    }
}

/// Sums of a wide row of the largest codes fit; so do those of bits that no packing writes.
#[test]
fn the_largest_codes_do_not_overflow() {
    let (rows, k) = (33, 1 << 15);
    for sign in [1.0, -1.0] {
        let x = vec![sign; 10 * k];
        for code in [-1, 0, 1] {
            let weight = vec![code; rows * k];
            let strips = packed(&weight, k);
            Product { x: &x, in_features: k, strips: &strips, rows, step: 1.0 }.check(&weight);
        }
        let strips = vec![0xff; bytes(rows, k).expect("it fits")];
        Product { x: &x, in_features: k, strips: &strips, rows, step: 1.0 }.check(&vec![2; rows * k]);
    }
}

/// Wider than what tiles keep in a cache, for as few tokens as go through them.
#[test]
fn rows_may_be_wider_than_a_cache() {
    let (tokens, k) = (17, (1 << 20) + 1);
    let weight = codes(k, 1);
    let (x, strips) = (numbers(tokens * k, 2), packed(&weight, k));
    Product { x: &x, in_features: k, strips: &strips, rows: 1, step: 0.37 }.check(&weight);
}

#[test]
fn what_is_no_number_reaches_its_token_and_no_other() {
    let (rows, k) = (37, 128);
    let weight = codes(rows * k, 1);
    let strips = packed(&weight, k);
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in [0, 63, 64, 127] {
            let mut x = numbers(3 * k, 2);
            x[k + place] = bad;
            for (table, input) in
                available().into_iter().flat_map(|t| InputQuantization::ALL.map(|input| (t, input)))
            {
                let out =
                    Product { x: &x, in_features: k, strips: &strips, rows, step: 0.5 }.by(table, input);
                let what = format!("{} {input:?}, {bad} at {place}", table.name);
                assert!(out[rows..2 * rows].iter().all(|x| !x.is_finite()), "{what} is hidden");
                assert!(out[..rows].iter().chain(&out[2 * rows..]).all(|x| x.is_finite()), "{what} spreads");
            }
        }
    }
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    let says = |expected: &str, call: &dyn Fn()| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).expect_err(expected);
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied()).expect("a message");
        assert!(message.contains(expected), "{message}");
    };
    for table in available() {
        let mut quantizer = RowQuantizer::default();
        quantizer.quantize(table, InputQuantization::ALL[0], &[1.0; 200], 100);
        let call = |bytes, tokens, rows| {
            let mut out = vec![0.0; tokens * rows];
            let factors = TernaryFactors { x: quantizer.tokens(), weight: &[0; 20_000][..bytes], step: 1.0 };
            (table.product_ternary)(factors, ColumnsMut::new(&mut out, rows));
        };
        let bytes = bytes(2, 100).expect("it fits");
        call(bytes, 2, 2);
        says("ternary strips for 2 rows", &|| call(bytes - 1, 2, 2));
        says("ternary strips for 33 rows", &|| call(bytes, 2, 33));
        says("3 tokens in 2 places", &|| call(bytes, 3, 2));
    }
}
