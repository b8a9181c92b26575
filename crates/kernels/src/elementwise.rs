//! Element-wise arithmetic and reductions, written once over arrays of lanes.
//!
//! Each function is `#[inline(always)]` and has no branch inside its loops. Each table compiles it for its
//! own instruction set. `FMA` says whether `a·b + c` is rounded once.

use crate::exponential::{self, Lanes, Split};
use crate::rounding::ROUND;
use half::bf16;

/// Partial sums kept side by side: one AVX-512 register, two of AVX2, four of SSE.
const LANES: usize = 16;

type LaneSums = [f32; LANES];

/// One row of `rms_norm`: its input, and the gradient of its output.
#[derive(Clone, Copy, Debug)]
pub struct NormRow<'a> {
    /// The input, `[hidden]`.
    pub x: &'a [f32],
    /// The norm's weight, `[hidden]`.
    pub weight: &'a [f32],
    /// What `rms_norm` returned.
    pub inv_rms: f32,
    /// Gradient of the output, `[hidden]`.
    pub d_out: &'a [f32],
}

/// The constants of one AdamW update (Loshchilov and Hutter 2019, in PyTorch's form):
/// `p ← p − lr·weight_decay·p − lr · (m / bias1) / (√(v / bias2) + eps)`.
#[derive(Clone, Copy, Debug)]
pub struct AdamWStep {
    /// Learning rate of this step.
    pub lr: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the denominator.
    pub eps: f32,
    /// Decoupled weight decay.
    pub weight_decay: f32,
    /// `1 − beta1^t`, t counted from 1.
    pub bias1: f32,
    /// `1 − beta2^t`.
    pub bias2: f32,
    /// The clipping factor, by which every gradient is multiplied first.
    pub grad_scale: f32,
}

#[inline(always)]
pub(crate) fn fma<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Adds the lanes in a fixed tree: 16 → 8 → 4 → 2 → 1.
#[inline(always)]
fn sum(mut lanes: LaneSums) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            lanes[i] += lanes[i + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Reduces `(a, b)` pairwise into lanes by `step(accumulator, a, b)`, in increasing index.
#[inline(always)]
fn reduce<const FMA: bool>(
    a: &[f32],
    b: &[f32],
    start: f32,
    step: impl Fn(f32, f32, f32) -> f32,
) -> LaneSums {
    assert_eq!(a.len(), b.len(), "two vectors of one length");
    let mut lanes = [start; LANES];
    let (a_chunks, a_rest) = a.as_chunks::<LANES>();
    let (b_chunks, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_chunks.iter().zip(b_chunks) {
        for i in 0..LANES {
            lanes[i] = step(lanes[i], a[i], b[i]);
        }
    }
    // Without FMA vectors are narrow. The compiler then makes the loop scalar to suit the code after it,
    // unless the lanes pass through memory.
    lanes = if FMA { lanes } else { std::hint::black_box(lanes) };
    for (i, (&a, &b)) in a_rest.iter().zip(b_rest).enumerate() {
        lanes[i] = step(lanes[i], a, b);
    }
    lanes
}

#[inline(always)]
pub(crate) fn dot<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    sum(reduce::<FMA>(a, b, 0.0, |sum, a, b| fma::<FMA>(a, b, sum)))
}

#[inline(always)]
pub(crate) fn axpy<const FMA: bool>(a: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "two vectors of one length");
    for (y, &x) in y.iter_mut().zip(x) {
        *y = fma::<FMA>(a, x, *y);
    }
}

#[inline(always)]
pub(crate) fn sum_of_squares<const FMA: bool>(x: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x); // exact in f64: fusing would change nothing
    let mut lanes = [0f64; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            lanes[i] += square(chunk[i]);
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().map(|&x| square(x)).sum::<f64>()
}

#[inline(always)]
pub(crate) fn rms_norm<const FMA: bool>(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> f32 {
    assert_eq!(x.len(), weight.len(), "one weight for each feature");
    assert_eq!(x.len(), out.len(), "out has the shape of x");
    let mean = dot::<FMA>(x, x) / x.len() as f32;
    let inv_rms = 1.0 / (mean + eps).sqrt();
    for ((out, &x), &weight) in out.iter_mut().zip(x).zip(weight) {
        *out = x * inv_rms * weight;
    }
    inv_rms
}

/// With `n = x · inv_rms`: `d_weight += d_out · n` and
/// `d_x += inv_rms · (w · d_out − n · mean(w · d_out · n))`.
#[inline(always)]
pub(crate) fn rms_norm_backward<const FMA: bool>(row: NormRow<'_>, d_x: &mut [f32], d_weight: &mut [f32]) {
    let NormRow { x, weight, inv_rms, d_out } = row;
    let len = x.len();
    assert!([weight.len(), d_out.len(), d_x.len(), d_weight.len()] == [len; 4], "rows of one length");
    let mut lanes = [0f32; LANES];
    let whole = len / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        // Slices of a known length, without which the compiler leaves the loop scalar.
        let [w, d, x] = [weight, d_out, x].map(|row| &row[start..start + LANES]);
        for i in 0..LANES {
            lanes[i] = fma::<FMA>(w[i] * d[i], x[i], lanes[i]);
        }
    }
    for k in whole..len {
        lanes[k - whole] = fma::<FMA>(weight[k] * d_out[k], x[k], lanes[k - whole]);
    }
    let along = sum(lanes) * inv_rms * inv_rms * inv_rms / len as f32;
    for k in 0..len {
        d_weight[k] = fma::<FMA>(d_out[k], x[k] * inv_rms, d_weight[k]);
        d_x[k] += fma::<FMA>(weight[k] * d_out[k], inv_rms, -(x[k] * along));
    }
}

/// One float, with or without fused multiply-add.
#[derive(Clone, Copy)]
struct Float<const FMA: bool>(f32);

impl<const FMA: bool> Lanes for Float<FMA> {
    #[inline(always)]
    fn splat(self, x: f32) -> Self {
        Self(x)
    }

    #[inline(always)]
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }

    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        Self(self.0 - other.0)
    }

    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }

    #[inline(always)]
    fn mul_add(self, factor: Self, term: Self) -> Self {
        Self(fma::<FMA>(self.0, factor.0, term.0))
    }
}

/// `e^x` to about 1 ulp. Results below 2^−125 are flushed to zero; overflow gives infinity, NaN stays NaN.
#[inline(always)]
fn exp<const FMA: bool>(x: f32) -> f32 {
    const LOWEST: f32 = -86.6;
    const HIGHEST: f32 = 88.722_84;
    let clamped = if x < LOWEST { LOWEST } else { x };
    let clamped = if clamped > HIGHEST { HIGHEST } else { clamped };
    let Split { value, shifted } = exponential::split(Float::<FMA>(clamped));
    // 2^(k − 1), doubled at the end, because 2^128 is no float.
    let k = (shifted.0.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
    let scale = f32::from_bits((k.wrapping_add(126) << 23) as u32);
    let value = value.0 * scale * 2.0;
    let value = if x < LOWEST { 0.0 } else { value };
    if x > HIGHEST { f32::INFINITY } else { value }
}

#[inline(always)]
pub(crate) fn softmax<const FMA: bool>(x: &mut [f32]) -> f32 {
    let lanes = reduce::<FMA>(x, x, f32::NEG_INFINITY, |max, x, _| if x > max { x } else { max });
    let max = lanes.iter().fold(f32::NEG_INFINITY, |max, &x| if x > max { x } else { max });
    let mut lanes = [0f32; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for chunk in chunks {
        for i in 0..LANES {
            chunk[i] = exp::<FMA>(chunk[i] - max);
            lanes[i] += chunk[i];
        }
    }
    for (i, x) in rest.iter_mut().enumerate() {
        *x = exp::<FMA>(*x - max);
        lanes[i] += *x;
    }
    let total = sum(lanes);
    let scale = 1.0 / total;
    for x in x.iter_mut() {
        *x *= scale;
    }
    max + total.ln()
}

#[inline(always)]
pub(crate) fn softmax_backward<const FMA: bool>(p: &[f32], d: &mut [f32]) {
    let along = dot::<FMA>(p, d);
    for (d, &p) in d.iter_mut().zip(p) {
        *d = p * (*d - along);
    }
}

/// Rounds to nearest, ties to even; NaN stays NaN.
#[inline(always)]
pub(crate) fn narrow<const FMA: bool>(x: &[f32], out: &mut [bf16]) {
    assert_eq!(x.len(), out.len(), "out has the length of x");
    for (out, &x) in out.iter_mut().zip(x) {
        let bits = x.to_bits();
        let rounded = bits.wrapping_add(0x7fff + (bits >> 16 & 1));
        let bits = if x.is_nan() { bits | 0x0040_0000 } else { rounded };
        *out = bf16::from_bits((bits >> 16) as u16);
    }
}

#[inline(always)]
pub(crate) fn silu_mul<const FMA: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    assert!(gate.len() == up.len() && gate.len() == out.len(), "three vectors of one length");
    for ((out, &gate), &up) in out.iter_mut().zip(gate).zip(up) {
        *out = gate / (1.0 + exp::<FMA>(-gate)) * up;
    }
}

/// With `s = sigmoid(gate)`: `d_up = d_out · gate·s` and `d_gate = d_out · up · s·(1 + gate·(1 − s))`.
#[inline(always)]
pub(crate) fn silu_mul_backward<const FMA: bool>(gate: &mut [f32], up: &mut [f32], d_out: &[f32]) {
    assert!(gate.len() == up.len() && gate.len() == d_out.len(), "three vectors of one length");
    for ((gate, up), &d_out) in gate.iter_mut().zip(up).zip(d_out) {
        let sigmoid = 1.0 / (1.0 + exp::<FMA>(-*gate));
        let d_gate = d_out * *up * sigmoid * fma::<FMA>(*gate, 1.0 - sigmoid, 1.0);
        *up = d_out * *gate * sigmoid;
        *gate = d_gate;
    }
}

#[inline(always)]
pub(crate) fn rope<const FMA: bool>(head: &mut [f32], cos: &[f32], sin: &[f32]) {
    assert!(head.len() == 2 * cos.len() && cos.len() == sin.len(), "one angle for each pair");
    let (first, second) = head.split_at_mut(cos.len());
    for (((first, second), &cos), &sin) in first.iter_mut().zip(second).zip(cos).zip(sin) {
        let (a, b) = (*first, *second);
        *first = fma::<FMA>(a, cos, -(b * sin));
        *second = fma::<FMA>(b, cos, a * sin);
    }
}

#[inline(always)]
pub(crate) fn adamw<const FMA: bool>(
    step: &AdamWStep,
    param: &mut [f32],
    grad: &[f32],
    m: &mut [f32],
    v: &mut [f32],
) {
    assert!([grad.len(), m.len(), v.len()] == [param.len(); 3], "vectors of one length");
    let AdamWStep { lr, beta1, beta2, eps, weight_decay, bias1, bias2, grad_scale } = *step;
    let (keep, rate, inv_sqrt_bias2) = (1.0 - lr * weight_decay, lr / bias1, 1.0 / bias2.sqrt());
    for (((param, &grad), m), v) in param.iter_mut().zip(grad).zip(m).zip(v) {
        let grad = grad * grad_scale;
        *m = fma::<FMA>(beta1, *m, (1.0 - beta1) * grad);
        *v = fma::<FMA>(beta2, *v, (1.0 - beta2) * grad * grad);
        let update = *m / fma::<FMA>(v.sqrt(), inv_sqrt_bias2, eps);
        *param = fma::<FMA>(-rate, update, *param * keep);
    }
}
