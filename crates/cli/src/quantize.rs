//! `offramp quantize`: a model folder in another number format.

use crate::formats;
use crate::number::bytes;
use crate::output;
use crate::progress::Progress;
use anyhow::Result;
use offramp_model::checkpoint::{self, Quantized};
use offramp_model::{CacheFormat, Format, Formats};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Write a model folder in another number format
///
/// int8 and int4 have a scale for each block of a row: 8.25 and 4.5 bits a weight. Such a folder loads here without
/// conversion; one in bf16 or f32 is a folder for transformers too. The head is most of the bytes of a narrow model,
/// and int8 loses less in it than int4. A model of the bitskip family is packed with --to ternary, 2 bits a weight and
/// its head as it is; a bitskip-v1 so packed is a bitnet for transformers.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp quantize runs/first-light --to int4 --head-format int8 --out first-light-int4"
)]
pub(crate) struct Arguments {
    /// A model folder, or a run folder
    model: PathBuf,
    /// Number format of the weights: f32, bf16, int8, int4 or ternary
    #[arg(long, value_name = "F")]
    to: Format,
    /// Number format of the head [default: --to's; beside ternary as it is]
    #[arg(long, value_name = "F")]
    head_format: Option<Format>,
    /// The folder to write; there must be none
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

#[derive(Serialize)]
struct Answer<'a> {
    #[serde(serialize_with = "output::path")]
    model: &'a Path,
    #[serde(serialize_with = "output::path")]
    out: &'a Path,
    layers: Option<Format>,
    head: Option<Format>,
    bytes_before: u64,
    bytes_after: u64,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let folder = checkpoint::resolve(&arguments.model)?;
    let wanted =
        Formats { layers: Some(arguments.to), head: arguments.head_format, kv_cache: CacheFormat::F32 };
    let mut progress = Progress::new(1);
    let mut show = |done: usize, total: usize| {
        progress.set_total(total as u64);
        let remaining = progress.remaining(done as u64, total as u64);
        let message = || format!("{} of {}, {remaining} left", bytes(done as u64), bytes(total as u64));
        progress.set(done as u64, message);
    };
    let found = checkpoint::quantize(&folder, &arguments.out, &wanted, &mut show)?;
    drop(progress);
    let Quantized { formats, bytes_before, bytes_after } = found;
    if json {
        let Formats { layers, head, .. } = formats;
        let answer = Answer { model: &folder, out: &arguments.out, layers, head, bytes_before, bytes_after };
        return Ok(output::json(&answer)?);
    }
    let share = 100.0 * bytes_after as f64 / bytes_before.max(1) as f64;
    let (before, after) = (bytes(bytes_before), bytes(bytes_after));
    let name = formats::name(&formats);
    Ok(output::text(&format!(
        "{}: {name}; {before} became {after} ({share:.0} %)\n",
        arguments.out.display()
    ))?)
}
