//! Where the codes and the scales of a strip lie.

use half::{bf16, f16};

/// Rows of a strip.
pub const STRIP: usize = 32;
/// Bytes of a block's scales.
pub(crate) const SCALES: usize = STRIP * size_of::<u16>();
/// Consecutive k that share a lane.
pub(crate) const QUAD: usize = 4;

/// Quantizations of the input that formats need: see [`StripFormat::input`].
pub(crate) const INPUTS: usize = 3;

/// The number format of a strip.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StripFormat {
    /// −127 to 127 in a byte; with its scale 8.25 bits a weight.
    Int8,
    /// −8 to 7, two in a byte; with its scale 4.5 bits a weight.
    Int4,
    /// −128 to 127 in a byte, with the blocks and the scales of a GGUF file: 8.5 bits a weight.
    Q8_0,
    /// −8 to 7, two in a byte, with the scales of a GGUF file: 4.5 bits a weight.
    Q4_0,
}

impl StripFormat {
    /// Every format.
    pub const ALL: [Self; 4] = [Self::Int8, Self::Int4, Self::Q8_0, Self::Q4_0];

    /// Consecutive weights of a row that share a scale.
    pub const fn block(self) -> usize {
        match self {
            Self::Int8 => 64,
            Self::Int4 | Self::Q8_0 | Self::Q4_0 => 32,
        }
    }

    /// Bits of a code.
    pub const fn bits(self) -> usize {
        match self {
            Self::Int8 | Self::Q8_0 => 8,
            Self::Int4 | Self::Q4_0 => 4,
        }
    }

    /// The stored code of 0. Codes are stored without a sign.
    pub const fn zero(self) -> i32 {
        1 << (self.bits() - 1)
    }

    /// Whether a scale is an IEEE half, as in a GGUF file, and not a `bf16`.
    pub const fn has_halves(self) -> bool {
        matches!(self, Self::Q8_0 | Self::Q4_0)
    }

    /// The value of a stored scale.
    pub fn scale(self, bytes: [u8; 2]) -> f32 {
        match self.has_halves() {
            true => f16::from_le_bytes(bytes).to_f32(),
            false => bf16::from_le_bytes(bytes).to_f32(),
        }
    }

    /// Formats of the same blocks and the same zero multiply the same quantized input. Below [`INPUTS`].
    pub(crate) const fn input(self) -> usize {
        match self {
            Self::Int8 => 0,
            Self::Int4 | Self::Q4_0 => 1,
            Self::Q8_0 => 2,
        }
    }

    /// Blocks of a row; the last one may be padded.
    pub const fn blocks(self, in_features: usize) -> usize {
        in_features.div_ceil(self.block())
    }

    /// Bytes of one block of a strip.
    pub(crate) const fn block_bytes(self) -> usize {
        STRIP * self.block() * self.bits() / 8 + SCALES
    }

    /// Bytes of one strip.
    pub const fn strip_bytes(self, in_features: usize) -> usize {
        self.blocks(in_features) * self.block_bytes()
    }

    /// Bytes of a matrix; `None` if they cannot be counted.
    pub fn bytes(self, rows: usize, in_features: usize) -> Option<usize> {
        self.blocks(in_features).checked_mul(self.block_bytes())?.checked_mul(rows.div_ceil(STRIP))
    }
}
