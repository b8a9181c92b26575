//! `offramp quantize`: writes a model folder in another number format.

use crate::formats;
use crate::number::bytes;
use crate::progress::ProgressBar;
use crate::{output, source};
use anyhow::Result;
use offramp_model::checkpoint::Quantized;
use offramp_model::{CacheFormat, Format, Formats};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Write a model folder in another number format
///
/// int8 and int4 have a scale for each block of a row: 8.25 and 4.5 bits a weight. Such a folder loads in
/// offramp without conversion. A folder in bf16 or f32 also loads in transformers. In a narrow model most
/// bytes are the head's, and int8 loses less there than int4. --to ternary packs a model of the bitskip
/// family: 2 bits a weight, with the head unchanged. A packed bitskip-v1 is a bitnet model for transformers.
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
    /// Number format of the head [default: that of --to; with ternary, unchanged]
    #[arg(long, value_name = "F")]
    head_format: Option<Format>,
    /// The folder to write; it must not exist
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
    let source = source::resolve(&arguments.model)?;
    let folder = source.path().to_owned();
    let wanted =
        Formats { layers: Some(arguments.to), head: arguments.head_format, kv_cache: CacheFormat::F32 };
    let mut progress = ProgressBar::new(1);
    let mut show = |done: usize, total: usize| {
        let (done, total) = (done as u64, total as u64);
        progress.report(done, total, |left| format!("{} of {}, {left} left", bytes(done), bytes(total)));
    };
    let found = offramp_pipeline::quantize(&source, &arguments.out, &wanted, &mut show)?;
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
