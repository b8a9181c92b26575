//! The names of the number formats.

use offramp_kernels::strips::StripFormat;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// How a matrix of weights is held; `crates/model/src/linear.rs` has a variant for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// bfloat16: the upper half of an `f32`.
    Bf16,
    /// 8-bit codes in strips, a scale for each 64 of a row.
    Int8,
    /// 4-bit codes in strips, a scale for each 32 of a row.
    Int4,
    /// 8-bit codes in strips, those of a GGUF file with its scales; no folder has them.
    Q8_0,
    /// 4-bit codes in strips, those of a GGUF file with its scales; no folder has them.
    Q4_0,
    /// −1, 0 or 1 in two bits, with one step for the whole matrix; only layers have it.
    Ternary,
}

/// How keys and values are held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheFormat {
    /// 32-bit floats.
    #[default]
    F32,
    /// IEEE half floats.
    F16,
}

/// A name of no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is no {what}: choose one of {choices}")]
pub struct UnknownFormat {
    found: String,
    what: &'static str,
    choices: String,
}

/// The formats of a model's parts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Formats {
    /// The layers' matrices; none: as in the file.
    pub layers: Option<Format>,
    /// The LM head; none: as the layers, if these are given (int8 beside ternary ones), else as in the file.
    pub head: Option<Format>,
    /// Keys and values.
    pub kv_cache: CacheFormat,
}

impl Format {
    /// Every format: floats, our codes, those of GGUF files, ternary ones.
    pub const ALL: [Self; 7] =
        [Self::F32, Self::Bf16, Self::Int8, Self::Int4, Self::Q8_0, Self::Q4_0, Self::Ternary];

    /// What `--format` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4 => "int4",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
            Self::Ternary => "ternary",
        }
    }

    /// Bits of a weight's code.
    pub(crate) fn bits(self) -> usize {
        match self {
            Self::F32 => 32,
            Self::Bf16 => 16,
            Self::Ternary => 2,
            Self::Int8 | Self::Int4 | Self::Q8_0 | Self::Q4_0 => self.strips().map_or(0, StripFormat::bits),
        }
    }

    /// Whether its values are floats.
    pub const fn is_float(self) -> bool {
        matches!(self, Self::F32 | Self::Bf16)
    }

    /// Whether a model folder may be in it.
    pub(crate) const fn in_folders(self) -> bool {
        !matches!(self, Self::Q8_0 | Self::Q4_0)
    }

    /// The strips of a format that has strips with scales.
    pub(crate) const fn strips(self) -> Option<StripFormat> {
        match self {
            Self::F32 | Self::Bf16 | Self::Ternary => None,
            Self::Int8 => Some(StripFormat::Int8),
            Self::Int4 => Some(StripFormat::Int4),
            Self::Q8_0 => Some(StripFormat::Q8_0),
            Self::Q4_0 => Some(StripFormat::Q4_0),
        }
    }
}

impl CacheFormat {
    /// Every format, widest first.
    pub const ALL: [Self; 2] = [Self::F32, Self::F16];

    /// What `--kv-cache` calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }

    /// Bytes of one number.
    pub const fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }
}

impl Formats {
    /// All matrices in one format.
    pub fn all(format: Format) -> Self {
        Self { layers: Some(format), ..Self::default() }
    }

    /// The head's format, if it does not depend on the file.
    pub(crate) fn of_head(&self) -> Option<Format> {
        let beside = |layers| if layers == Format::Ternary { Format::Int8 } else { layers };
        self.head.or(self.layers.map(beside))
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl fmt::Display for CacheFormat {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| unknown(name, "format of weights", &Self::ALL.map(Self::name)))
    }
}

impl FromStr for CacheFormat {
    type Err = UnknownFormat;

    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        let found = Self::ALL.into_iter().find(|format| format.name() == name);
        found.ok_or_else(|| unknown(name, "format of a KV cache", &Self::ALL.map(Self::name)))
    }
}

fn unknown(found: &str, what: &'static str, choices: &[&str]) -> UnknownFormat {
    UnknownFormat { found: offramp_files::legible(found), what, choices: choices.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_there_and_back() {
        for format in Format::ALL {
            assert_eq!(format.name().parse(), Ok(format));
            assert_eq!(serde_json::to_value(format).unwrap(), format.name());
        }
        for format in CacheFormat::ALL {
            assert_eq!(format.name().parse(), Ok(format));
            assert_eq!(serde_json::to_value(format).unwrap(), format.name());
        }
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_choices() {
        let message = |name: &str| name.parse::<Format>().unwrap_err().to_string();
        assert_eq!(
            message("q4"),
            "\"q4\" is no format of weights: choose one of f32, bf16, int8, int4, q8_0, q4_0, ternary"
        );
        assert!(!message("a\nb").contains('\n'));
        let message = "bf16".parse::<CacheFormat>().unwrap_err().to_string();
        assert_eq!(message, "\"bf16\" is no format of a KV cache: choose one of f32, f16");
    }
}
