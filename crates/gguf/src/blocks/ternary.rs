//! Blocks of 256 ternary codes.

use super::half::{narrow, widen};

/// `qs: [u8; 48], qh: [u8; 4], d: f16`, `d · (q − 1)`. A byte is a fraction of five digits in base three:
/// times three, its integer part is the first digit.
pub(crate) fn tq1_0(bytes: &[u8], out: &mut [f32]) {
    let d = widen(&bytes[52..]);
    each_tq1_0(bytes, |at, code| out[at] = d * f32::from(code));
}

/// The codes and the bits of the scale of [`tq1_0`].
pub(crate) fn codes_tq1_0(bytes: &[u8], codes: &mut [i8]) -> u16 {
    each_tq1_0(bytes, |at, code| codes[at] = code);
    u16::from_le_bytes([bytes[52], bytes[53]])
}

fn each_tq1_0(bytes: &[u8], mut put: impl FnMut(usize, i8)) {
    let mut at = 0;
    for (bytes, powers) in
        [(&bytes[..32], &POWERS[..]), (&bytes[32..48], &POWERS[..]), (&bytes[48..52], &POWERS[..4])]
    {
        for &power in powers {
            for &byte in bytes {
                put(at, ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as i8 - 1);
                at += 1;
            }
        }
    }
}

const POWERS: [u8; 5] = [1, 3, 9, 27, 81];

/// `qs: [u8; 64], d: f16`, `d · (q − 1)`. The 32 bytes of each half have four groups of 32 codes.
pub(crate) fn tq2_0(bytes: &[u8], out: &mut [f32]) {
    let d = widen(&bytes[64..]);
    each_tq2_0(bytes, out, |code| d * f32::from(code));
}

/// As [`codes_tq1_0`], of [`tq2_0`]. A code of two bits may be 2.
pub(crate) fn codes_tq2_0(bytes: &[u8], codes: &mut [i8]) -> u16 {
    each_tq2_0(bytes, codes, |code| code);
    u16::from_le_bytes([bytes[64], bytes[65]])
}

fn each_tq2_0<V>(bytes: &[u8], out: &mut [V], value: impl Fn(i8) -> V) {
    for (group, out) in out.chunks_exact_mut(32).enumerate() {
        let codes = &bytes[group / 4 * 32..][..32];
        for (out, &byte) in out.iter_mut().zip(codes) {
            *out = value((byte >> (2 * (group % 4)) & 3) as i8 - 1);
        }
    }
}

/// The scale is the largest magnitude; a value becomes the nearest of −1, 0 and 1 times it.
pub(crate) fn encode_tq2_0(values: &[f32], out: &mut Vec<u8>) {
    let d = values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    let code = |value: f32| ((value * inverse).round() as i8 + 1) as u8;
    for half in values.chunks_exact(128) {
        out.extend(
            (0..32).map(|k| (0..4).fold(0, |byte, group| byte | code(half[32 * group + k]) << (2 * group))),
        );
    }
    out.extend(narrow(d).to_le_bytes());
}
