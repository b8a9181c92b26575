//! `offramp prepare`: writes a corpus as token shards.

use crate::number::{bytes, grouped};
use crate::progress::ProgressBar;
use crate::{output, several, stories};
use anyhow::Result;
use offramp_ranks::Ranks;
use offramp_text::{
    PrepareOptions, PrepareProgress, PrepareSummary, SHARD_TOKENS, SplitSummary, Stage, TokenizerChoice,
};
use std::path::{Path, PathBuf};

/// Turn text, JSONL or Parquet into token shards
///
/// TRAIN and --valid are files: .txt (stories with <|endoftext|> between them), .jsonl, .json or .csv, each
/// also packed as .gz or .zst, or .parquet. They may also be a folder of such files, a pattern in quotes, or
/// standard input, written as a hyphen. Several are read one after the other, in the order given; those of a
/// folder or a pattern in the order of their names. The output folder holds the tokenizer, the shards and
/// corpus.json. Started by `mpirun`, the processes share the encoding, and the files are the same.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp prepare train.txt --valid valid.txt --vocab-size 2048 --out data/tinystories\n  \
                  offramp prepare train-0.parquet train-1.parquet --valid valid.parquet --out data/tinystories\n  \
                  zcat tales.jsonl.gz | offramp prepare - --text-format jsonl --text-column story --out data/tales\n  \
                  mpirun -n 4 offramp prepare 'tales/*.parquet' --out data/tales"
)]
pub(crate) struct Arguments {
    /// The training stories: files, folders, patterns, or -
    #[arg(required = true, num_args = 1..)]
    train: Vec<PathBuf>,
    /// The validation stories, as TRAIN; repeat it for several
    #[arg(long, value_name = "PATH")]
    valid: Vec<PathBuf>,
    #[command(flatten)]
    reading: stories::Reading,
    /// The folder to write
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// "gpt2", or the path of a tokenizer.json or of a GGUF file
    #[arg(long, value_name = "NAME", default_value = "gpt2", conflicts_with = "vocab_size")]
    tokenizer: String,
    /// Train a byte-level BPE of N tokens on the training stories instead
    #[arg(long, value_name = "N")]
    vocab_size: Option<usize>,
}

pub(crate) fn run(arguments: &Arguments, threads: Option<usize>, json: bool) -> Result<()> {
    let mut ranks = Ranks::of_launcher()?;
    // Without a limit: some wait long for the last, and for the first, which trains the tokenizer and joins.
    let summary = several::together(&mut ranks, None, |ranks| prepare(arguments, threads, ranks))?;
    let Some(summary) = summary else { return Ok(()) };
    remark(&summary);
    if json {
        return Ok(output::json(&summary)?);
    }
    Ok(output::text(&describe(&summary, &arguments.out))?)
}

/// Prepares the corpus on all ranks. The first shows progress on stderr, and has the summary.
fn prepare(
    arguments: &Arguments,
    threads: Option<usize>,
    ranks: &mut Ranks,
) -> Result<Option<PrepareSummary>> {
    let tokenizer = match arguments.vocab_size {
        Some(vocab_size) => TokenizerChoice::Train { vocab_size },
        None if ranks.is_first() => offramp_train::tokenizer_named(&arguments.tokenizer)?,
        None => TokenizerChoice::Gpt2, // the first gives its own to the others
    };
    let (train, valid) = (arguments.train.clone(), arguments.valid.clone());
    let (reading, out) = (arguments.reading.options(), arguments.out.clone());
    let options = PrepareOptions { train, valid, reading, out, tokenizer, shard_tokens: SHARD_TOKENS };
    if ranks.is_first() {
        arguments.reading.announce(&[&arguments.train[..], &arguments.valid].concat());
        if ranks.size() > 1 && options.read_a_stream() {
            output::note("note: standard input or a pipe is read by one process: the first prepares alone");
        }
    }
    let mut progress = ProgressBar::new(1);
    let show = &mut |now| show(&mut progress, now);
    Ok(offramp_train::prepare(&options, ranks, threads, show)?)
}

/// Shows how far the preparation of a corpus is.
pub(crate) fn show(progress: &mut ProgressBar, now: PrepareProgress) {
    // The size of a stream is not known beforehand.
    progress.set_total(now.bytes_total.max(now.bytes_read));
    let of = if now.bytes_total == 0 { String::new() } else { format!(" of {}", bytes(now.bytes_total)) };
    progress.set(now.bytes_read, || {
        let what = match now.stage {
            Stage::TrainTokenizer => "training the tokenizer",
            Stage::EncodeTrain => "encoding the training stories",
            Stage::EncodeValid => "encoding the validation stories",
            Stage::Join => "joining what the other processes have encoded",
        };
        let share = match now.processes {
            1 => String::new(),
            processes => format!(", as one of {processes} processes"),
        };
        format!("{what}{share}: {}{of}", bytes(now.bytes_read))
    });
}

/// Prints what is remarkable about a corpus.
pub(crate) fn remark(summary: &PrepareSummary) {
    for (name, split) in [("train", Some(&summary.train)), ("valid", summary.valid.as_ref())] {
        for remark in split.map(|split| split.counts.remarks()).unwrap_or_default() {
            output::note(&format!("note: {name}: {remark}"));
        }
    }
}

fn describe(summary: &PrepareSummary, out: &Path) -> String {
    let split = |name: &str, split: &SplitSummary| {
        let SplitSummary { counts, tokens, utf8_bytes, .. } = split;
        let (stories, tokens, size) = (grouped(counts.stories), grouped(*tokens), bytes(*utf8_bytes));
        format!(
            "{name:10}  {stories} stories, {tokens} tokens, {size} of text, from {}\n",
            sources(&split.sources)
        )
    };
    let vocabulary = format!("{} tokens, {}", grouped(summary.vocab_size as u64), summary.tokenizer);
    let mut text = format!("{:10}  {}\n{:10}  {vocabulary}\n", "folder", out.display(), "vocabulary");
    text += &split("train", &summary.train);
    if let Some(valid) = &summary.valid {
        text += &split("valid", valid);
    }
    text
}

/// The names of one or two files; of more, the first name and the number of others.
fn sources(names: &[String]) -> String {
    match names {
        [first, _, .., _] => format!("{first} and {} more", names.len() - 1),
        few => few.join(" and "),
    }
}
