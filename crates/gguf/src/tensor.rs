//! The number formats of tensors.

use crate::blocks;

/// A number format that is decoded. The names are those of ggml.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types, reason = "ggml's names")]
pub enum TensorType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// bfloat16.
    BF16,
    /// 32 codes of 8 bits, one scale.
    Q8_0,
    /// 32 codes of 4 bits, one scale.
    Q4_0,
    /// 32 codes of 4 bits, a scale and a minimum.
    Q4_1,
    /// 32 codes of 5 bits, one scale.
    Q5_0,
    /// 32 codes of 5 bits, a scale and a minimum.
    Q5_1,
    /// 256 codes of 4 bits, eight scales and minima of 6 bits.
    Q4_K,
    /// 256 codes of 5 bits, eight scales and minima of 6 bits.
    Q5_K,
    /// 256 codes of 6 bits, 16 scales of 8 bits.
    Q6_K,
    /// 256 ternary codes, five in a byte, one scale.
    TQ1_0,
    /// 256 ternary codes, four in a byte, one scale.
    TQ2_0,
}

/// Names of formats that are not decoded, by their numbers.
const OTHERS: [(u32, &str); 17] = [
    (9, "Q8_1"),
    (10, "Q2_K"),
    (11, "Q3_K"),
    (15, "Q8_K"),
    (16, "IQ2_XXS"),
    (17, "IQ2_XS"),
    (18, "IQ3_XXS"),
    (19, "IQ1_S"),
    (20, "IQ4_NL"),
    (21, "IQ3_S"),
    (22, "IQ2_S"),
    (23, "IQ4_XS"),
    (28, "F64"),
    (29, "IQ1_M"),
    (36, "I2_S, of bitnet.cpp"),
    (39, "MXFP4"),
    (40, "NVFP4"),
];

impl TensorType {
    /// Every format that is decoded.
    pub const ALL: [Self; 13] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q8_0,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
        Self::TQ1_0,
        Self::TQ2_0,
    ];

    /// ggml's name.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// All names, in a line.
    pub(crate) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// ggml's number.
    pub const fn number(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q4_K => 12,
            Self::Q5_K => 13,
            Self::Q6_K => 14,
            Self::BF16 => 30,
            Self::TQ1_0 => 34,
            Self::TQ2_0 => 35,
        }
    }

    /// The format with a number; the name of one that is not decoded.
    pub(crate) fn from_number(number: u32) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.number() == number);
        let name = || OTHERS.iter().find(|other| other.0 == number).map(|other| other.1.to_owned());
        known.ok_or_else(|| name().unwrap_or_else(|| format!("a format of number {number}")))
    }

    /// Values of a block.
    pub const fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K | Self::TQ1_0 | Self::TQ2_0 => 256,
        }
    }

    /// Bytes of a block.
    pub const fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4_K => 144,
            Self::Q5_K => 176,
            Self::Q6_K => 210,
            Self::TQ1_0 => 54,
            Self::TQ2_0 => 66,
        }
    }

    /// Whether its values are floats, and not codes.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::F16 | Self::BF16)
    }

    /// Decodes whole blocks.
    ///
    /// # Panics
    /// If `bytes` are not whole blocks, or `out` is not of their values.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) {
        assert!(bytes.len().is_multiple_of(self.block_bytes()), "whole blocks");
        assert_eq!(bytes.len() / self.block_bytes() * self.block(), out.len(), "a value for each code");
        let one = self.decoder();
        for (bytes, out) in bytes.chunks_exact(self.block_bytes()).zip(out.chunks_exact_mut(self.block())) {
            one(bytes, out);
        }
    }

    /// Bits of a code, if a value is a code, a whole number, times the one scale of its block.
    pub const fn code_bits(self) -> Option<usize> {
        match self {
            Self::Q8_0 => Some(8),
            Self::Q5_0 => Some(5),
            Self::Q4_0 => Some(4),
            Self::TQ1_0 | Self::TQ2_0 => Some(2),
            _ => None,
        }
    }

    /// The codes of whole blocks, and for each block the bits of its scale, an IEEE half.
    ///
    /// # Panics
    /// If [`code_bits`](Self::code_bits) has none, `bytes` are not whole blocks, or there is no room for
    /// exactly their codes and scales.
    pub fn codes(self, bytes: &[u8], codes: &mut [i8], scales: &mut [u16]) {
        assert!(bytes.len().is_multiple_of(self.block_bytes()), "whole blocks");
        assert_eq!(bytes.len() / self.block_bytes(), scales.len(), "a scale for each block");
        assert_eq!(scales.len() * self.block(), codes.len(), "a place for each code");
        let one = match self {
            Self::Q8_0 => blocks::legacy::codes_q8_0,
            Self::Q5_0 => blocks::legacy::codes_q5_0,
            Self::Q4_0 => blocks::legacy::codes_q4_0,
            Self::TQ1_0 => blocks::ternary::codes_tq1_0,
            Self::TQ2_0 => blocks::ternary::codes_tq2_0,
            _ => panic!("{} has more than codes and scales", self.name()),
        };
        let each = bytes.chunks_exact(self.block_bytes()).zip(codes.chunks_exact_mut(self.block()));
        for ((bytes, codes), scale) in each.zip(scales) {
            *scale = one(bytes, codes);
        }
    }

    /// Encodes whole rows as `gguf`'s Python package does, where it can.
    ///
    /// # Panics
    /// If the format is none of those that are written, or the values are not whole blocks.
    pub fn encode(self, values: &[f32], out: &mut Vec<u8>) {
        assert!(values.len().is_multiple_of(self.block()), "whole blocks");
        values.chunks_exact(self.block()).for_each(|values| match self {
            Self::F32 => out.extend(values[0].to_le_bytes()),
            Self::F16 => out.extend(blocks::half::narrow(values[0]).to_le_bytes()),
            Self::BF16 => out.extend(blocks::half::to_bf16(values[0]).to_le_bytes()),
            Self::Q8_0 => blocks::legacy::encode_q8_0(values, out),
            Self::Q4_0 => blocks::legacy::encode_q4_0(values, out),
            Self::TQ2_0 => blocks::ternary::encode_tq2_0(values, out),
            _ => panic!("{} is not written", self.name()),
        });
    }

    fn decoder(self) -> fn(&[u8], &mut [f32]) {
        match self {
            Self::F32 => blocks::half::f32,
            Self::F16 => blocks::half::f16,
            Self::BF16 => blocks::half::bf16,
            Self::Q8_0 => blocks::legacy::q8_0,
            Self::Q4_0 => blocks::legacy::q4_0,
            Self::Q4_1 => blocks::legacy::q4_1,
            Self::Q5_0 => blocks::legacy::q5_0,
            Self::Q5_1 => blocks::legacy::q5_1,
            Self::Q4_K => blocks::k_quants::q4_k,
            Self::Q5_K => blocks::k_quants::q5_k,
            Self::Q6_K => blocks::k_quants::q6_k,
            Self::TQ1_0 => blocks::ternary::tq1_0,
            Self::TQ2_0 => blocks::ternary::tq2_0,
        }
    }
}
