//! Packs one strip: how the scales are chosen, and where each code goes.

use super::layout::{QUAD, SCALES, STRIP, StripFormat};
use crate::rounding::{nearest, nearest_i32};
use half::{bf16, f16};

/// Sums kept side by side.
const LANES: usize = 16;
/// Scales that are tried for a block of 4 bits: the largest weight becomes −8 plus so many tenths.
const TENTHS: std::ops::RangeInclusive<i32> = -9..=9;

/// Nothing here is fused, so that the same weights give the same strips in every table.
#[inline(always)]
pub(crate) fn pack_strip<const FMA: bool>(
    format: StripFormat,
    rows: &[f32],
    in_features: usize,
    strip: &mut [u8],
) {
    match format.block() {
        64 => pack_blocks::<64>(format, rows, in_features, strip),
        _ => pack_blocks::<32>(format, rows, in_features, strip),
    }
}

#[inline(always)]
fn pack_blocks<const BLOCK: usize>(format: StripFormat, rows: &[f32], in_features: usize, strip: &mut [u8]) {
    for (index, block) in strip.chunks_exact_mut(format.block_bytes()).enumerate() {
        block.fill(0);
        let first = index * BLOCK;
        for row in 0..STRIP {
            let Some(values) = rows.get(row * in_features..(row + 1) * in_features) else {
                put(format, block, row, &[0; BLOCK], 0);
                continue;
            };
            let values = &values[first..in_features.min(first + BLOCK)];
            let mut weights = [0.0; BLOCK];
            weights[..values.len()].copy_from_slice(values);
            let (found, scale) = quantized(format, &weights);
            put(format, block, row, &found, scale);
        }
    }
}

/// The codes of a block of a row, and the bits of its scale.
#[inline(always)]
fn quantized<const BLOCK: usize>(format: StripFormat, weights: &[f32; BLOCK]) -> ([i32; BLOCK], u16) {
    let odd = weights.iter().fold(false, |odd, weight| odd | !weight.is_finite());
    let scale = match format {
        StripFormat::Q8_0 | StripFormat::Q4_0 if odd => return ([0; BLOCK], f16::NAN.to_bits()),
        StripFormat::Q8_0 | StripFormat::Q4_0 => return as_llama_cpp(format, weights),
        _ if odd => bf16::NAN,
        StripFormat::Int8 => bf16::from_f32(largest(weights).abs() / 127.0),
        StripFormat::Int4 => fitted_scale(weights),
    };
    (round_all(weights, scale.to_f32(), format), scale.to_bits())
}

/// As `quantize_row_q8_0_ref` and `quantize_row_q4_0_ref` of llama.cpp: codes are chosen before the scale is
/// rounded.
#[inline(always)]
fn as_llama_cpp<const BLOCK: usize>(format: StripFormat, weights: &[f32; BLOCK]) -> ([i32; BLOCK], u16) {
    let of_eight_bits = format == StripFormat::Q8_0;
    let scale = if of_eight_bits { largest(weights).abs() / 127.0 } else { first_largest(weights) / -8.0 };
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let mut codes = [0; BLOCK];
    for (code, weight) in codes.iter_mut().zip(weights) {
        *code = match of_eight_bits {
            true => i32::from((weight * inverse).round() as i8),
            false => (weight * inverse + 8.5).trunc().clamp(0.0, 15.0) as i32 - 8,
        };
    }
    (codes, f16::from_f32(scale).to_bits())
}

/// Writes a row's share of a block.
#[inline(always)]
fn put(format: StripFormat, block: &mut [u8], row: usize, found: &[i32], scale: u16) {
    for (k, &code) in found.iter().enumerate() {
        let code = (code + format.zero()) as u8;
        let (byte, shift) = place(format, row, k);
        block[byte] |= code << shift;
    }
    let scales = block.len() - SCALES;
    block[scales + 2 * row..][..2].copy_from_slice(&scale.to_le_bytes());
}

/// Where a code lies in its block: the byte, and its shift within the byte.
pub(super) fn place(format: StripFormat, row: usize, k: usize) -> (usize, usize) {
    let (quad, lane) = (k / QUAD, row * QUAD + k % QUAD);
    match format.bits() {
        8 => (quad * STRIP * QUAD + lane, 0),
        // The even quad in the low half, the odd one in the high half.
        _ => (quad / 2 * STRIP * QUAD + lane, quad % 2 * 4),
    }
}

/// The weight of the largest magnitude; of two of them, the positive one.
#[inline(always)]
fn largest(weights: &[f32]) -> f32 {
    let mut ends = [[0f32; LANES]; 2];
    for weights in weights.as_chunks::<LANES>().0 {
        for i in 0..LANES {
            ends[0][i] = if weights[i] < ends[0][i] { weights[i] } else { ends[0][i] };
            ends[1][i] = if weights[i] > ends[1][i] { weights[i] } else { ends[1][i] };
        }
    }
    let least = ends[0].iter().fold(0f32, |least, &w| if w < least { w } else { least });
    let most = ends[1].iter().fold(0f32, |most, &w| if w > most { w } else { most });
    if -least > most { least } else { most }
}

/// The weight of the largest magnitude; of two of them, the first.
#[inline(always)]
fn first_largest(weights: &[f32]) -> f32 {
    weights.iter().fold(0f32, |largest, &weight| if weight.abs() > largest.abs() { weight } else { largest })
}

/// Adds the lanes.
#[inline(always)]
fn sum(lanes: [f32; LANES]) -> f32 {
    lanes.iter().sum()
}

#[inline(always)]
fn fitted_scale<const BLOCK: usize>(weights: &[f32; BLOCK]) -> bf16 {
    let largest = largest(weights);
    if largest == 0.0 {
        return bf16::ZERO;
    }
    // Relative to the largest, so that squares neither vanish nor overflow.
    let mut shares = *weights;
    shares.iter_mut().for_each(|share| *share /= largest);
    let mut best = (f32::NEG_INFINITY, 0.0);
    for tenths in TENTHS {
        let inverse = -(8.0 + 0.1 * tenths as f32);
        let (mut along, mut square) = ([0.0; LANES], [0.0; LANES]);
        for shares in shares.as_chunks::<LANES>().0 {
            for i in 0..LANES {
                let code = nearest(shares[i] * inverse).clamp(-8.0, 7.0);
                along[i] += shares[i] * code;
                square[i] += code * code;
            }
        }
        let (along, square) = (sum(along), sum(square));
        // Error = Σ share² − along² / square.
        let explained = along * along / square;
        if explained > best.0 {
            best = (explained, along / square);
        }
    }
    // Rounding to `bf16` moves a scale by up to a 512th part. If the fit gains less than that, the plain
    // scale may be better.
    let [fitted, plain] = [best.1, -0.125].map(|share| bf16::from_f32(share * largest));
    let error = |scale: bf16| -> f32 {
        let scale = scale.to_f32() / largest;
        let codes = round_all(&shares, scale, StripFormat::Int4);
        let mut errors = [0.0; LANES];
        for (shares, codes) in shares.as_chunks::<LANES>().0.iter().zip(codes.as_chunks::<LANES>().0) {
            for i in 0..LANES {
                let error = shares[i] - codes[i] as f32 * scale;
                errors[i] += error * error;
            }
        }
        sum(errors)
    };
    if error(fitted) < error(plain) { fitted } else { plain }
}

#[inline(always)]
fn round_all<const BLOCK: usize>(weights: &[f32; BLOCK], scale: f32, format: StripFormat) -> [i32; BLOCK] {
    let (least, most) = if format.bits() == 8 { (-127.0, 127.0) } else { (-8.0, 7.0) };
    if scale == 0.0 {
        return [0; BLOCK];
    }
    // A division, because the smallest scales have no finite inverse.
    let mut codes = [0; BLOCK];
    for (code, weight) in codes.iter_mut().zip(weights) {
        *code = nearest_i32(nearest(weight / scale).clamp(least, most));
    }
    codes
}
