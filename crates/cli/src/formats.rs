//! The arguments for number formats.

use offramp_model::{CacheFormat, Format, Formats};

/// The formats of the whole model.
#[derive(Clone, Copy, Debug, clap::Args)]
#[group(id = "formats")]
pub(crate) struct Arguments {
    /// Number format of the weights: f32, bf16, int8, int4, q8_0, q4_0 or ternary [default: as the folder or
    /// file holds them]
    #[arg(long, value_name = "F")]
    format: Option<Format>,
    #[command(flatten)]
    parts: Parts,
}

/// The formats that may differ from the layers'.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Parts {
    /// Number format of the head [default: --format's; int8 beside ternary]
    #[arg(long, value_name = "F")]
    head_format: Option<Format>,
    /// Number format of keys and values: f32 or f16
    #[arg(long, value_name = "F", default_value_t = CacheFormat::F32)]
    kv_cache: CacheFormat,
}

impl Arguments {
    pub(crate) fn formats(&self) -> Formats {
        self.parts.formats(self.format)
    }
}

impl Parts {
    pub(crate) fn formats(&self, layers: Option<Format>) -> Formats {
        Formats { layers, head: self.head_format, kv_cache: self.kv_cache }
    }
}

/// "int4", or "int4, head int8".
pub(crate) fn name(formats: &Formats) -> String {
    let name = |format: Option<Format>| format.map_or("as it was", Format::name);
    match formats.head == formats.layers {
        true => name(formats.layers).to_owned(),
        false => format!("{}, head {}", name(formats.layers), name(formats.head)),
    }
}
