//! The journal of a training run: what happened, one JSON object per line.
//!
//! Lines are only ever appended, each in one write, so that a killed run leaves at most its last line
//! torn. [`read`] forgives that line and no other. Losses are nats per token. A number that is not
//! finite (a run that diverges has them) is written as `null` and read back as NaN.

use crate::error::{Error, Result};
use offramp_files::{legible, write_whole};
use serde::{Deserialize, Deserializer, Serialize};
use std::fs::{self, File};
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};

/// One line, told apart by its `kind`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    /// A process began to train.
    Start(StartRecord),
    /// The optimizer made a step.
    Step(StepRecord),
    /// The validation split was measured.
    Validation(ValidationRecord),
    /// A checkpoint is on disk.
    Checkpoint(CheckpointRecord),
    /// A process stopped training.
    Finish(FinishRecord),
}

/// A process began to train, from scratch or from a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StartRecord {
    /// Steps already made: 0 unless the run resumes.
    pub step: u64,
    /// offramp's version.
    pub version: String,
    /// The instruction set in use.
    pub kernels: String,
    /// Threads that share the work.
    pub threads: usize,
    /// Values that the model learns.
    pub parameters: u64,
    /// What all chance in the run is drawn from.
    pub seed: u64,
    /// Seconds since 1970.
    pub unix_time: u64,
    /// What the run began from, as its recipe names it, if not from random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<String>,
}

/// One step of the optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Steps made, this one included.
    pub step: u64,
    /// Tokens seen since the run began.
    pub tokens: u64,
    /// What was minimised: the last layer's loss and the early exits' together.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
    /// The last layer's loss alone.
    #[serde(deserialize_with = "number")]
    pub final_loss: f64,
    /// The losses of the exits that were active.
    pub exit_losses: Vec<ExitLoss>,
    /// The gradient's norm before it was clipped.
    #[serde(deserialize_with = "number")]
    pub grad_norm: f64,
    /// The learning rate of this step.
    pub learning_rate: f64,
    /// Bits of the activations' codes, of a low-bit model.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation_bits: Option<u32>,
    /// Training tokens per second in this step.
    #[serde(deserialize_with = "number")]
    pub tokens_per_second: f64,
}

/// The loss at one exit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExitLoss {
    /// Layers that ran.
    pub exit_layer: usize,
    /// Nats per token.
    #[serde(deserialize_with = "number")]
    pub loss: f64,
}

/// The validation split, measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValidationRecord {
    /// Steps made before.
    pub step: u64,
    /// Loss at each exit that was measured.
    pub exits: Vec<ExitLoss>,
    /// Bits per byte of text at full depth.
    #[serde(deserialize_with = "number")]
    pub bits_per_byte: f64,
}

/// A checkpoint is on disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Steps made before.
    pub step: u64,
    /// Its folder's name within the run folder.
    pub folder: String,
    /// The folder of the checkpoint with the lowest validation loss so far, if one was validated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<String>,
}

/// A process stopped training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FinishRecord {
    /// Steps made.
    pub step: u64,
    /// Whether these are all that the recipe asks for.
    pub complete: bool,
    /// Seconds since this process's start record.
    pub seconds: f64,
}

impl ExitLoss {
    /// Between how many equally likely tokens this loss hesitates.
    pub fn perplexity(&self) -> f64 {
        self.loss.exp()
    }
}

impl Record {
    /// Steps made when it was written.
    pub fn step(&self) -> u64 {
        match self {
            Self::Start(record) => record.step,
            Self::Step(record) => record.step,
            Self::Validation(record) => record.step,
            Self::Checkpoint(record) => record.step,
            Self::Finish(record) => record.step,
        }
    }
}

/// A journal open for appending.
#[derive(Debug)]
pub struct Journal {
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Opens the journal at `path`, or begins one. A torn last line is removed.
    ///
    /// # Errors
    /// If the file cannot be read or written.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error| Error::write(path, error);
        let options = File::options().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = options.map_err(failed)?;
        let whole = whole_lines(&fs::read(path).map_err(|error| Error::read(path, error))?).len();
        file.set_len(whole as u64).map_err(failed)?;
        file.seek(io::SeekFrom::End(0)).map_err(failed)?;
        Ok(Self { file, path: path.to_owned() })
    }

    /// Appends one line.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let written = serde_json::to_vec(record).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            self.file.write_all(&line)
        });
        written.map_err(|error| Error::write(&self.path, error))
    }
}

/// Every record of a journal, oldest first; a torn last line is left out.
///
/// # Errors
/// If the file cannot be read, or a whole line of it is no record.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let bytes = fs::read(path).map_err(|error| Error::read(path, error))?;
    lines(&bytes, path).map(|line| line.map(|(record, _)| record)).collect()
}

/// Removes the records of later steps than `step`, as a run does that resumes from an earlier
/// checkpoint; a journal that is not there stays so.
///
/// # Errors
/// As [`read`], or if the file cannot be written; then it is as it was.
pub fn truncate_after(path: &Path, step: u64) -> Result<()> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(|error| Error::read(path, error))?,
    };
    let lines: Vec<_> = lines(&bytes, path).collect::<Result<_>>()?;
    let kept = lines.iter().filter(|(record, _)| record.step() <= step).map(|(_, line)| *line);
    write_whole(path, &kept.collect::<Vec<_>>().concat()).map_err(|error| Error::write(path, error))
}

/// Each whole line as a record and as it stands, line feed included.
fn lines<'a>(bytes: &'a [u8], path: &'a Path) -> impl Iterator<Item = Result<(Record, &'a [u8])>> {
    whole_lines(bytes).split_inclusive(|&byte| byte == b'\n').enumerate().map(|(index, line)| {
        let record = serde_json::from_slice(line).map_err(|error| {
            let reason = format!("not a record of a journal: {}", legible(&error.to_string()));
            Error::Journal { path: path.to_owned(), line: index + 1, reason }
        })?;
        Ok((record, line))
    })
}

/// What comes before a torn last line.
fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    &bytes[..end]
}

/// A number, or NaN for the `null` that JSON has instead.
fn number<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<f64, D::Error> {
    Option::<f64>::deserialize(deserializer).map(|number| number.unwrap_or(f64::NAN))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64, loss: f64) -> Record {
        Record::Step(StepRecord {
            step,
            tokens: step * 1000,
            loss,
            final_loss: loss / 1.1,
            exit_losses: vec![ExitLoss { exit_layer: 6, loss: loss + 0.1 }],
            grad_norm: 1.0 / 3.0,
            learning_rate: 6e-4,
            activation_bits: None,
            tokens_per_second: 1234.5,
        })
    }

    fn validation(step: u64) -> Record {
        let exits = vec![ExitLoss { exit_layer: 2, loss: 3.25 }, ExitLoss { exit_layer: 4, loss: 3.0 }];
        Record::Validation(ValidationRecord { step, exits, bits_per_byte: 1.25 })
    }

    fn records() -> Vec<Record> {
        let start = StartRecord {
            step: 0,
            version: "0.1.0".to_owned(),
            kernels: "avx2".to_owned(),
            threads: 2,
            parameters: 1_061_591_040,
            seed: u64::MAX,
            unix_time: 1_764_000_000,
            checkpoint: Some("runs/base".to_owned()),
        };
        let checkpoint = CheckpointRecord { step: 2, folder: "step-000002".to_owned(), best: None };
        let finish = FinishRecord { step: 2, complete: true, seconds: 12.5 };
        vec![
            Record::Start(start),
            step(1, 10.8249),
            step(2, 0.1 + 0.2),
            validation(2),
            Record::Checkpoint(checkpoint),
            Record::Finish(finish),
        ]
    }

    fn written(path: &Path, records: &[Record]) {
        let mut journal = Journal::open(path).unwrap();
        records.iter().for_each(|record| journal.append(record).unwrap());
    }

    #[test]
    fn what_is_appended_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        let records = records();
        written(&path, &records[..2]);
        written(&path, &records[2..]);
        assert_eq!(read(&path).unwrap(), records);
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), records.len());
        assert!(
            text.lines().nth(1).unwrap().starts_with(r#"{"kind":"step","step":1,"tokens":1000,"#),
            "{text}"
        );
    }

    #[test]
    fn a_run_that_diverges_can_be_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        written(&path, &[step(1, f64::NAN), step(2, f64::INFINITY)]);
        for record in read(&path).unwrap() {
            let Record::Step(record) = record else { panic!("{record:?}") };
            assert!(record.loss.is_nan() && record.exit_losses[0].loss.is_nan());
            assert_eq!(record.learning_rate, 6e-4);
        }
    }

    #[test]
    fn a_torn_last_line_is_forgiven_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        written(&path, &[step(1, 2.0), step(2, 1.0)]);
        let text = fs::read(&path).unwrap();
        for torn in 1..text.len() / 2 {
            fs::write(&path, &text[..text.len() - torn]).unwrap();
            assert_eq!(read(&path).unwrap(), [step(1, 2.0)], "{torn} bytes torn off");
        }
        written(&path, &[step(2, 0.5)]);
        assert_eq!(read(&path).unwrap(), [step(1, 2.0), step(2, 0.5)]);
    }

    #[test]
    fn a_bad_line_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        for bad in
            ["{\"kind\":\"step\",\"st\n", "{\"kind\":\"dance\"}\n", "\n", "\u{0}\n", "{\"kind\":\"step\"}\n"]
        {
            written(&path, &[step(1, 2.0)]);
            let mut text = fs::read_to_string(&path).unwrap();
            text.push_str(bad);
            fs::write(&path, text).unwrap();
            written(&path, &[step(3, 2.0)]);
            let before = fs::read(&path).unwrap();
            for message in
                [read(&path).unwrap_err(), truncate_after(&path, 1).unwrap_err()].map(|e| e.to_string())
            {
                assert!(message.contains("journal.jsonl, line 2: ") && !message.contains('\n'), "{message}");
            }
            assert_eq!(fs::read(&path).unwrap(), before);
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn resuming_removes_what_came_later() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal.jsonl");
        truncate_after(&path, 1).unwrap();
        assert!(!path.exists());
        let all = [step(1, 3.0), step(2, 2.0), validation(2), step(3, 1.0), validation(4)];
        written(&path, &all);
        fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"kind\":").unwrap();
        truncate_after(&path, 2).unwrap();
        assert_eq!(read(&path).unwrap(), all[..3]);
        truncate_after(&path, 0).unwrap();
        assert_eq!(read(&path).unwrap(), []);
    }

    #[test]
    fn a_journal_that_cannot_be_is_one_clear_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("absent").join("journal.jsonl");
        for error in [Journal::open(&path).map(drop).unwrap_err(), read(&path).map(drop).unwrap_err()] {
            let message = error.to_string();
            assert!(message.contains("journal.jsonl") && !message.contains('\n'), "{message}");
        }
    }
}
