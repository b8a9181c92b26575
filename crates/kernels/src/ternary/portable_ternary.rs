//! The product of tokens and ternary strips in plain Rust, written so that compilers vectorize it.

use super::layout::{BLOCK, BLOCK_BYTES, LINE, QUAD, QUADS, STEP, STRIP};
use crate::columns::ColumnsMut;
use crate::factors::TernaryFactors;

/// Rows whose sums stay in registers together, and their bytes of a line.
const ROWS: usize = 8;
const BYTES: usize = ROWS * QUAD;
// The products of a block that one lane adds up fit `i16`.
const _: () = assert!(BLOCK / QUAD * 3 * 128 < 1 << 15);
/// Four inputs twice: what the codes of two rows are multiplied by.
type Inputs = [i16; 2 * QUAD];

/// `out[t, r] = Σ_k x[t, k] · weight[r, k]`, one token and one strip at a time.
#[inline(always)]
pub(crate) fn product_ternary<const FMA: bool>(factors: TernaryFactors<'_>, mut out: ColumnsMut<'_>) {
    let bytes = factors.check(out.rows(), out.columns());
    for (first, strip) in (0..out.columns()).step_by(STRIP).zip(factors.weight.chunks_exact(bytes)) {
        let rows = STRIP.min(out.columns() - first);
        for token in 0..out.rows() {
            let step = factors.x.steps(token)[0] * factors.step;
            let sums = strip_sums(&factors, strip, token);
            for (out, sum) in out.row(token)[first..first + rows].iter_mut().zip(sums) {
                *out = sum as f32 * step;
            }
        }
    }
}

#[inline(always)]
fn strip_sums(factors: &TernaryFactors<'_>, strip: &[u8], token: usize) -> [i32; STRIP] {
    let mut sums = [factors.x.offsets(token)[0]; STRIP];
    for (index, block) in strip.as_chunks::<BLOCK_BYTES>().0.iter().enumerate() {
        let quads = factors.x.codes(index, token)[..BLOCK].as_chunks::<QUAD>().0;
        let wide: [Inputs; BLOCK / QUAD] =
            std::array::from_fn(|quad| std::array::from_fn(|i| i16::from(quads[quad][i % QUAD])));
        for (group, sums) in sums.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
            let mut lanes = [0i16; BYTES];
            for (line, x) in block.as_chunks::<LINE>().0.iter().zip(wide.as_chunks::<QUADS>().0) {
                let stored = &line.as_chunks::<BYTES>().0[group];
                for (quad, x) in x.iter().enumerate() {
                    multiply(&stored.map(|byte| byte >> (2 * quad) & 3), x, &mut lanes);
                }
            }
            // Unless the lanes pass through memory, the compiler makes the loop scalar to suit the sums
            // below.
            let lanes = std::hint::black_box(lanes);
            for (sum, lanes) in sums.iter_mut().zip(lanes.as_chunks::<QUAD>().0) {
                *sum += lanes.iter().map(|&lane| i32::from(lane)).sum::<i32>();
            }
        }
    }
    sums
}

#[inline(always)]
fn multiply(codes: &[u8; BYTES], x: &Inputs, sums: &mut [i16; BYTES]) {
    for (codes, sums) in
        codes.as_chunks::<{ 2 * QUAD }>().0.iter().zip(sums.as_chunks_mut::<{ 2 * QUAD }>().0)
    {
        for i in 0..2 * QUAD {
            sums[i] += i16::from(codes[i]) * x[i];
        }
    }
}

const _: () = assert!(STEP * (BLOCK_BYTES / LINE) == BLOCK);
