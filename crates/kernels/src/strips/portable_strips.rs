//! The product of tokens and strips in plain Rust, written so that compilers vectorize it.

use super::layout::{QUAD, SCALES, STRIP, StripFormat};
use crate::columns::ColumnsMut;
use crate::elementwise::fma;
use crate::factors::StripFactors;

/// Rows whose sums stay in registers together, and their codes at four k.
const ROWS: usize = 8;
const CODES: usize = ROWS * QUAD;
/// Most steps of a block. The sum of so many products fits `i16`.
const STEPS: usize = StripFormat::Int8.block() / QUAD;
const _: () = assert!(STEPS * 15 * 128 < 1 << 15);
/// Four inputs twice: what 8 codes are multiplied by.
type Inputs = [i16; 2 * QUAD];

/// `out[t, r] = Σ_k x[t, k] · weight[r, k]`, one token and one strip at a time.
#[inline(always)]
pub(crate) fn product_strips<const FMA: bool>(factors: StripFactors<'_>, mut out: ColumnsMut<'_>) {
    let bytes = factors.check(out.rows(), out.columns());
    for (first, strip) in (0..out.columns()).step_by(STRIP).zip(factors.weight.chunks_exact(bytes)) {
        let rows = STRIP.min(out.columns() - first);
        for token in 0..out.rows() {
            let sums = strip_sums::<FMA>(&factors, strip, token);
            out.row(token)[first..first + rows].copy_from_slice(&sums[..rows]);
        }
    }
}

#[inline(always)]
fn strip_sums<const FMA: bool>(factors: &StripFactors<'_>, strip: &[u8], token: usize) -> [f32; STRIP] {
    let StripFactors { format, x, .. } = *factors;
    let mut sums = [0f32; STRIP];
    for (index, block) in strip.chunks_exact(format.block_bytes()).enumerate() {
        let inputs = &x.codes(index, token)[..format.block()];
        let (scale, offset) = (x.scales(index, token)[0], x.offsets(index, token)[0]);
        let (stored, scales) = block.split_at(block.len() - SCALES);
        let whole = match format.bits() {
            8 => bytes(stored, inputs, offset),
            _ => nibbles(stored, inputs, offset),
        };
        for (r, &bytes) in scales.as_chunks::<2>().0.iter().enumerate() {
            let weight_scale = format.scale(bytes);
            sums[r] = fma::<FMA>(weight_scale * scale, whole[r] as f32, sums[r]);
        }
    }
    sums
}

/// A code of 8 bits is 16 times its upper half plus its lower half.
#[inline(always)]
fn bytes(stored: &[u8], inputs: &[i8], offset: i32) -> [i32; STRIP] {
    let quads = inputs.as_chunks::<QUAD>().0;
    halves(stored, quads.iter().map(|quad| [quad; 2]), [offset, 1, 16])
}

/// The halves of a byte are codes of two quads.
#[inline(always)]
fn nibbles(stored: &[u8], inputs: &[i8], offset: i32) -> [i32; STRIP] {
    let pairs = inputs.as_chunks::<QUAD>().0.as_chunks::<2>().0;
    halves(stored, pairs.iter().map(|[low, high]| [low, high]), [offset, 1, 1])
}

/// `offset + low · Σ lower halves · inputs + high · Σ upper halves · inputs`, each sum exact in `i16`.
#[inline(always)]
fn halves<'a>(
    stored: &[u8],
    inputs: impl Iterator<Item = [&'a [i8; QUAD]; 2]>,
    [offset, low, high]: [i32; 3],
) -> [i32; STRIP] {
    let mut wide = [[Inputs::default(); 2]; STEPS];
    for (wide, quads) in wide.iter_mut().zip(inputs) {
        *wide = quads.map(|quad| std::array::from_fn(|i| i16::from(quad[i % QUAD])));
    }
    let mut sums = [0; STRIP];
    for (group, sums) in sums.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
        let (mut lows, mut highs) = ([0i16; CODES], [0i16; CODES]);
        for (codes, x) in stored.as_chunks::<{ STRIP * QUAD }>().0.iter().zip(&wide) {
            let codes = codes.as_chunks::<CODES>().0[group];
            multiply(&codes.map(|code| code & 15), &x[0], &mut lows);
            multiply(&codes.map(|code| code >> 4), &x[1], &mut highs);
        }
        // Unless the lanes pass through memory, the compiler makes the loop scalar to suit the sums below.
        let (lows, highs) = std::hint::black_box((lows, highs));
        for (r, sum) in sums.iter_mut().enumerate() {
            let of_row =
                |halves: &[i16; CODES]| halves[r * QUAD..][..QUAD].iter().map(|&x| i32::from(x)).sum::<i32>();
            *sum = offset + low * of_row(&lows) + high * of_row(&highs);
        }
    }
    sums
}

#[inline(always)]
fn multiply(codes: &[u8; CODES], x: &Inputs, sums: &mut [i16; CODES]) {
    for (codes, sums) in
        codes.as_chunks::<{ 2 * QUAD }>().0.iter().zip(sums.as_chunks_mut::<{ 2 * QUAD }>().0)
    {
        for i in 0..2 * QUAD {
            sums[i] += i16::from(codes[i]) * x[i];
        }
    }
}
