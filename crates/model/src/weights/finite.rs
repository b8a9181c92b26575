//! Searches for values that are not finite, at the speed of memory.

use offramp_kernels::bf16;
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::strips::{STRIP, StripFormat};

/// Values that a thread checks at a time.
const CHUNK: usize = 1 << 16;

/// The first value that is NaN or infinite, and its index.
pub(super) fn first_not_finite(values: &[f32]) -> Option<(usize, f32)> {
    let at = first(values, |value| !value.is_finite())?;
    Some((at, values[at]))
}

/// As [`first_not_finite`].
pub(super) fn first_not_finite_bf16(values: &[bf16]) -> Option<(usize, f32)> {
    let at = first(values, |value| !value.is_finite())?;
    Some((at, values[at].to_f32()))
}

fn first<V: Copy + Sync>(values: &[V], bad: impl Fn(V) -> bool + Sync) -> Option<usize> {
    // No branch per value, so that compilers vectorize it.
    let any = |chunk: &[V]| chunk.iter().fold(false, |any, &value| any | bad(value));
    let start = CHUNK * values.par_chunks(CHUNK).position_first(any)?;
    values[start..].iter().position(|&value| bad(value)).map(|offset| start + offset)
}

/// The first scale that is NaN or infinite, and the index of its first weight, in strips of rows of
/// `in_features`. Codes are always finite.
pub(super) fn first_scale_not_finite(
    format: StripFormat,
    strips: &[u8],
    in_features: usize,
) -> Option<(usize, f32)> {
    let block = format.strip_bytes(format.block());
    let scales = |bytes: &[u8]| {
        let scales = &bytes[block - STRIP * size_of::<bf16>()..];
        std::array::from_fn::<_, STRIP, _>(|row| bf16::from_le_bytes([scales[2 * row], scales[2 * row + 1]]))
    };
    let any = |bytes: &[u8]| scales(bytes).iter().fold(false, |any, scale| any | !scale.is_finite());
    let at = strips.par_chunks_exact(block).with_min_len(1 << 8).position_first(any)?;
    let (strip, k) = (at / format.blocks(in_features), at % format.blocks(in_features) * format.block());
    let scales = scales(&strips[at * block..][..block]);
    let row = scales.iter().position(|scale| !scale.is_finite())?;
    Some(((strip * STRIP + row) * in_features + k, scales[row].to_f32()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use offramp_kernels::strips::pack;

    #[test]
    fn the_first_bad_value_is_found_in_any_chunk() {
        let mut values = vec![1.0f32; 300_000];
        let mut halves = vec![bf16::ONE; 300_000];
        assert_eq!(first_not_finite(&values), None);
        assert_eq!(first_not_finite_bf16(&halves), None);
        for index in [299_999, 131_072, 131_071, 70_000, 0] {
            values[index] = f32::INFINITY;
            assert_eq!(first_not_finite(&values), Some((index, f32::INFINITY)));
            halves[index] = bf16::NEG_INFINITY;
            assert_eq!(first_not_finite_bf16(&halves), Some((index, f32::NEG_INFINITY)));
        }
    }

    #[test]
    fn a_bad_scale_is_found_at_its_first_weight() {
        for format in [StripFormat::Int8, StripFormat::Int4] {
            let (rows, in_features, bytes) = (70, 150, format.strip_bytes(150));
            let values = vec![0.5; rows * in_features];
            let mut strips = vec![0; bytes * 3];
            for (values, strip) in values.chunks(STRIP * in_features).zip(strips.chunks_mut(bytes)) {
                pack(format, values, in_features, strip);
            }
            assert_eq!(first_scale_not_finite(format, &strips, in_features), None);
            // Row 37 is the sixth of the second strip.
            let block = format.strip_bytes(1);
            let end = bytes + 2 * block;
            strips[end - 64 + 2 * 5..][..2].copy_from_slice(&bf16::NEG_INFINITY.to_le_bytes());
            let found = first_scale_not_finite(format, &strips, in_features);
            assert_eq!(found, Some((37 * in_features + format.block(), f32::NEG_INFINITY)));
        }
    }
}
