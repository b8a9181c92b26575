//! Blocks of 32 codes of 4, 5 or 8 bits.

use super::half::{narrow, widen};

/// `d: f16, qs: [i8; 32]`, `d · q`
pub(crate) fn q8_0(bytes: &[u8], out: &mut [f32]) {
    let d = widen(bytes);
    for (out, &code) in out.iter_mut().zip(&bytes[2..]) {
        *out = d * f32::from(code as i8);
    }
}

/// `d: f16, qs: [u8; 16]`, `d · (q − 8)`; the low halves of the bytes come first.
pub(crate) fn q4_0(bytes: &[u8], out: &mut [f32]) {
    let d = widen(bytes);
    halves(&bytes[2..], out, |code, _| d * f32::from(i16::from(code) - 8));
}

/// `d: f16, m: f16, qs: [u8; 16]`, `d · q + m`
pub(crate) fn q4_1(bytes: &[u8], out: &mut [f32]) {
    let (d, m) = (widen(bytes), widen(&bytes[2..]));
    halves(&bytes[4..], out, |code, _| d * f32::from(code) + m);
}

/// `d: f16, qh: u32, qs: [u8; 16]`, `d · (q − 16)`; `qh` has the fifth bit of each code.
pub(crate) fn q5_0(bytes: &[u8], out: &mut [f32]) {
    let (d, fifth) = (widen(bytes), fifth_bits(&bytes[2..]));
    halves(&bytes[6..], out, |code, k| d * f32::from(i16::from(code | fifth(k)) - 16));
}

/// `d: f16, m: f16, qh: u32, qs: [u8; 16]`, `d · q + m`
pub(crate) fn q5_1(bytes: &[u8], out: &mut [f32]) {
    let (d, m, fifth) = (widen(bytes), widen(&bytes[2..]), fifth_bits(&bytes[4..]));
    halves(&bytes[8..], out, |code, k| d * f32::from(code | fifth(k)) + m);
}

/// The codes and the bits of the scale of [`q8_0`].
pub(crate) fn codes_q8_0(bytes: &[u8], codes: &mut [i8]) -> u16 {
    for (code, &byte) in codes.iter_mut().zip(&bytes[2..]) {
        *code = byte as i8;
    }
    u16::from_le_bytes([bytes[0], bytes[1]])
}

/// As [`codes_q8_0`], of [`q4_0`].
pub(crate) fn codes_q4_0(bytes: &[u8], codes: &mut [i8]) -> u16 {
    halves(&bytes[2..], codes, |code, _| code as i8 - 8);
    u16::from_le_bytes([bytes[0], bytes[1]])
}

/// As [`codes_q8_0`], of [`q5_0`].
pub(crate) fn codes_q5_0(bytes: &[u8], codes: &mut [i8]) -> u16 {
    let fifth = fifth_bits(&bytes[2..]);
    halves(&bytes[6..], codes, |code, k| (code | fifth(k)) as i8 - 16);
    u16::from_le_bytes([bytes[0], bytes[1]])
}

fn fifth_bits(bytes: &[u8]) -> impl Fn(usize) -> u8 {
    let bits = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    move |k| ((bits >> k & 1) as u8) << 4
}

fn halves<V>(codes: &[u8], out: &mut [V], value: impl Fn(u8, usize) -> V) {
    let (low, high) = out.split_at_mut(16);
    for (k, ((&byte, low), high)) in codes[..16].iter().zip(low).zip(high).enumerate() {
        *low = value(byte & 15, k);
        *high = value(byte >> 4, k + 16);
    }
}

/// As ggml rounds: half away from zero.
pub(crate) fn encode_q8_0(values: &[f32], out: &mut Vec<u8>) {
    let d = values.iter().fold(0.0f32, |most, value| most.max(value.abs())) / 127.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    out.extend(narrow(d).to_le_bytes());
    out.extend(values.iter().map(|value| (value * inverse).round() as i8 as u8));
}

/// The scale is that of the value of the largest magnitude, which becomes −8.
pub(crate) fn encode_q4_0(values: &[f32], out: &mut Vec<u8>) {
    let largest = values
        .iter()
        .fold(0.0f32, |largest, &value| if value.abs() > largest.abs() { value } else { largest });
    let d = largest / -8.0;
    let inverse = if d == 0.0 { 0.0 } else { 1.0 / d };
    out.extend(narrow(d).to_le_bytes());
    let code = |value: f32| (value * inverse + 8.5).trunc().clamp(0.0, 15.0) as u8;
    let (low, high) = values.split_at(16);
    out.extend(low.iter().zip(high).map(|(&low, &high)| code(low) | code(high) << 4));
}
