//! The product of tokens and strips in plain Rust, written so that compilers vectorise it.

use super::{Codes, QUAD, STRIP, Strips};
use crate::columns::ColumnsMut;
use crate::lanes::fma;
use half::bf16;

/// One lane for each row of a strip.
type Sums = [i32; STRIP];

/// `out[t, r] = Σ_k x[t, k] · weight[r, k]`, one token and one strip at a time.
#[inline(always)]
pub(crate) fn product_strips<const FMA: bool>(factors: Strips<'_>, mut out: ColumnsMut<'_>) {
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
fn strip_sums<const FMA: bool>(factors: &Strips<'_>, strip: &[u8], token: usize) -> [f32; STRIP] {
    let Strips { codes, x, .. } = *factors;
    let mut sums = [0f32; STRIP];
    for (index, block) in strip.chunks_exact(codes.block_bytes()).enumerate() {
        let inputs = &x.codes(index, token)[..codes.block()];
        let (scale, offset) = (x.scales(index, token)[0], x.offsets(index, token)[0]);
        let (stored, scales) = block.split_at(block.len() - super::SCALES);
        let mut whole: Sums = [offset; STRIP];
        match codes {
            Codes::Int8 => int8(stored, inputs, &mut whole),
            Codes::Int4 => int4(stored, inputs, &mut whole),
        }
        for (r, bytes) in scales.as_chunks::<2>().0.iter().enumerate() {
            let weight_scale = bf16::from_le_bytes(*bytes).to_f32();
            sums[r] = fma::<FMA>(weight_scale * scale, whole[r] as f32, sums[r]);
        }
    }
    sums
}

#[inline(always)]
fn int8(stored: &[u8], inputs: &[i8], sums: &mut Sums) {
    for (codes, x) in stored.as_chunks::<{ STRIP * QUAD }>().0.iter().zip(inputs.as_chunks::<QUAD>().0) {
        add(codes, x, sums);
    }
}

#[inline(always)]
fn int4(stored: &[u8], inputs: &[i8], sums: &mut Sums) {
    for (codes, x) in stored.as_chunks::<{ STRIP * QUAD }>().0.iter().zip(inputs.as_chunks::<{ 2 * QUAD }>().0) {
        let (low, high) = x.split_at(QUAD);
        add(&codes.map(|code| code & 15), low.first_chunk().expect("a quad"), sums);
        add(&codes.map(|code| code >> 4), high.first_chunk().expect("a quad"), sums);
    }
}

/// Four codes of each row by the four inputs.
#[inline(always)]
fn add(codes: &[u8; STRIP * QUAD], x: &[i8; QUAD], sums: &mut Sums) {
    let x = x.map(i32::from);
    for r in 0..STRIP {
        let of_row: [i32; QUAD] = std::array::from_fn(|i| i32::from(codes[r * QUAD + i]) * x[i]);
        sums[r] += of_row[0] + of_row[1] + of_row[2] + of_row[3];
    }
}
