//! Half-width floats, as files hold them, widened to `f32`. Exact in both cases.

use half::{bf16, f16};

/// Little-endian IEEE half floats to `f32`.
///
/// # Panics
/// If `bytes` is not twice as long as `out`.
pub fn f16_to_f32(bytes: &[u8], out: &mut [f32]) {
    widen(bytes, out, |pair| f16::from_le_bytes(pair).to_f32());
}

/// Little-endian bfloat16 to `f32`.
///
/// # Panics
/// If `bytes` is not twice as long as `out`.
pub fn bf16_to_f32(bytes: &[u8], out: &mut [f32]) {
    widen(bytes, out, |pair| bf16::from_le_bytes(pair).to_f32());
}

fn widen(bytes: &[u8], out: &mut [f32], one: impl Fn([u8; 2]) -> f32) {
    assert_eq!(bytes.len(), 2 * out.len(), "two bytes for each float");
    for (pair, value) in bytes.as_chunks::<2>().0.iter().zip(out) {
        *value = one(*pair);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_widens_exactly() {
        let bits: Vec<u16> = (0..=u16::MAX).collect();
        let bytes: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
        let mut out = vec![0.0; bits.len()];
        f16_to_f32(&bytes, &mut out);
        for (&bit, &value) in bits.iter().zip(&out) {
            let expected = f16_by_definition(bit);
            assert!(value == expected || (value.is_nan() && expected.is_nan()), "{bit:#06x}");
        }
        bf16_to_f32(&bytes, &mut out);
        for (&bit, &value) in bits.iter().zip(&out) {
            let expected = f32::from_bits(u32::from(bit) << 16);
            assert!(value == expected || (value.is_nan() && expected.is_nan()), "{bit:#06x}");
        }
    }

    /// sign · 2^(exponent − 15) · 1.mantissa, IEEE 754 binary16.
    fn f16_by_definition(bits: u16) -> f32 {
        let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
        let (exponent, mantissa) = (i32::from(bits >> 10 & 31), f32::from(bits & 1023));
        match exponent {
            0 => sign * mantissa * 2f32.powi(-24),
            31 if mantissa == 0.0 => sign * f32::INFINITY,
            31 => f32::NAN,
            _ => sign * (1.0 + mantissa / 1024.0) * 2f32.powi(exponent - 15),
        }
    }
}
