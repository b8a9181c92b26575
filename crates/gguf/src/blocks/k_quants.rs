//! Blocks of 256 codes, with scales that have scales.

use super::half::widen;

/// `d: f16, dmin: f16, scales: [u8; 12], qs: [u8; 128]`, `d · sc · q − dmin · m`
pub(crate) fn q4_k(bytes: &[u8], out: &mut [f32]) {
    with_minima(bytes, &bytes[16..], out, |_, _| 0);
}

/// The same with `qh: [u8; 32]` before `qs`, which has the fifth bits: bit `i` of byte `k` is that of code
/// `32 i + k`.
pub(crate) fn q5_k(bytes: &[u8], out: &mut [f32]) {
    let fifth = &bytes[16..48];
    with_minima(bytes, &bytes[48..], out, |group, k| (fifth[k] >> group & 1) << 4);
}

/// Eight groups of 32 codes; a byte has one code of each of two groups.
fn with_minima(bytes: &[u8], codes: &[u8], out: &mut [f32], fifth: impl Fn(usize, usize) -> u8) {
    let (d, dmin, packed) = (widen(bytes), widen(&bytes[2..]), &bytes[4..16]);
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let (scale, minimum) = scale_and_minimum(packed, group);
        let (d, minimum) = (d * f32::from(scale), dmin * f32::from(minimum));
        let codes = &codes[group / 2 * 32..][..32];
        for (k, (out, &byte)) in out.iter_mut().zip(codes).enumerate() {
            let code = byte >> (4 * (group % 2)) & 15 | fifth(group, k);
            *out = d * f32::from(code) - minimum;
        }
    }
}

/// Six bits each. The last four groups have four bits in the last four bytes, and two where the first groups
/// leave them free.
fn scale_and_minimum(packed: &[u8], group: usize) -> (u8, u8) {
    match group {
        0..4 => (packed[group] & 63, packed[group + 4] & 63),
        _ => (
            packed[group + 4] & 15 | packed[group - 4] >> 2 & 48,
            packed[group + 4] >> 4 | packed[group] >> 2 & 48,
        ),
    }
}

/// `ql: [u8; 128], qh: [u8; 64], scales: [i8; 16], d: f16`, `d · sc · (q − 32)`
pub(crate) fn q6_k(bytes: &[u8], out: &mut [f32]) {
    let (low, high, scales, d) = (&bytes[..128], &bytes[128..192], &bytes[192..208], widen(&bytes[208..]));
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        // Each half of the block has 64 bytes of low bits, and 32 of high bits for its four groups.
        let (half, of_half) = (group / 4, group % 4);
        for (k, out) in out.iter_mut().enumerate() {
            let low = low[64 * half + 32 * (of_half % 2) + k] >> (4 * (of_half / 2)) & 15;
            let high = high[32 * half + k] >> (2 * of_half) & 3;
            let scale = d * f32::from(scales[2 * group + k / 16] as i8);
            *out = scale * f32::from(i16::from(low | high << 4) - 32);
        }
    }
}
