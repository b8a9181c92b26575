//! Floats of 16 and 32 bits.

pub(crate) fn f32(bytes: &[u8], out: &mut [f32]) {
    out[0] = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
}

pub(crate) fn f16(bytes: &[u8], out: &mut [f32]) {
    out[0] = widen(bytes);
}

pub(crate) fn bf16(bytes: &[u8], out: &mut [f32]) {
    out[0] = f32::from_bits(u32::from(u16::from_le_bytes([bytes[0], bytes[1]])) << 16);
}

/// The value of an IEEE half in the first two bytes.
pub(crate) fn widen(bytes: &[u8]) -> f32 {
    let bits = u32::from(u16::from_le_bytes([bytes[0], bytes[1]]));
    let (sign, exponent, fraction) = (bits >> 15 << 31, bits >> 10 & 31, bits & 0x3ff);
    match exponent {
        // A fraction of 2^-24 each.
        0 => f32::from_bits(sign | (fraction as f32 / (1 << 24) as f32).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 112) << 23 | fraction << 13),
    }
}

/// The nearest IEEE half, ties to even.
pub(crate) fn narrow(value: f32) -> u16 {
    let bits = value.to_bits();
    let (sign, magnitude) = ((bits >> 16 & 0x8000) as u16, bits & 0x7fff_ffff);
    let rounded = match magnitude {
        0x7f80_0001.. => 0x7e00, // NaN
        0x477f_f000.. => 0x7c00, // too large: infinity
        0x3880_0000.. => {
            // Rounds off 13 bits of the fraction; a carry goes into the exponent.
            let odd = magnitude >> 13 & 1;
            ((magnitude - 0x3800_0000 + 0xfff + odd) >> 13) as u16
        }
        // Below 2^-14, in steps of 2^-24: adding 1/2 leaves them at the end of the fraction, rounded.
        _ => (f32::from_bits(magnitude) + 0.5).to_bits() as u16,
    };
    sign | rounded
}

/// The nearest bfloat16, ties to even.
pub(crate) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    if value.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_half_comes_back() {
        for bits in 0..=u16::MAX {
            let value = widen(&bits.to_le_bytes());
            match value.is_nan() {
                true => assert!(bits & 0x7c00 == 0x7c00 && bits & 0x3ff != 0),
                false => assert_eq!(narrow(value), bits, "{value:e}"),
            }
        }
    }

    #[test]
    fn what_lies_between_is_rounded_to_even() {
        for bits in (0..0x7bffu16).chain(0x8000..0xfbff) {
            let (low, high) = (widen(&bits.to_le_bytes()), widen(&(bits + 1).to_le_bytes()));
            let middle = low / 2.0 + high / 2.0;
            assert_eq!(narrow(middle), bits + (bits & 1), "{middle:e}");
            assert_eq!(narrow(middle + (low - middle) / 64.0), bits, "below {middle:e}");
            assert_eq!(narrow(middle + (high - middle) / 64.0), bits + 1, "above {middle:e}");
        }
        assert_eq!((narrow(65_520.0), narrow(65_519.0), narrow(f32::NEG_INFINITY)), (0x7c00, 0x7bff, 0xfc00));
    }

    #[test]
    fn bfloats_are_rounded_to_even() {
        for (value, bits) in [(1.0f32, 0x3f80), (1.003_906_2, 0x3f80), (1.011_718_8, 0x3f82), (-2.0, 0xc000)]
        {
            assert_eq!(to_bf16(value), bits, "{value}");
        }
        assert!(f32::from_bits(u32::from(to_bf16(f32::NAN)) << 16).is_nan());
    }
}
