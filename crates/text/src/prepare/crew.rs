//! Several processes prepare a corpus together. They make the files of one.
//!
//! 1. The first process checks everything, finds or trains the tokenizer, and makes a hidden folder in the
//!    output folder. The others wait, read the tokenizer there, and look at the same files.
//! 2. Each encodes its part of every split (`corpus/part.rs`): the first into the shards, which begin with
//!    its part, the others into files in the hidden folder (`parts.rs`).
//! 3. The first appends these to the shards, in the order of the processes, and publishes. The others wait.
//!
//! So the shards are written by one process in the order of the stories, as if it had encoded all. What one
//! process does alone is the tokenizer's training and the third step.
//!
//! An error of one process must end the others, which would wait for it; that is the caller's work. The first
//! that fails removes the hidden folder with all that is in it, and has the error; any that fail after it
//! say so.

use std::path::PathBuf;

use offramp_files::{Finished, SharedFolder};

use super::encode::SplitJob;
use super::join::{Joining, Report};
use super::output::{ShardOutput, Target};
use super::parts::{self, PartSeal, PartWriter};
use super::{Corpora, PrepareOptions, PrepareProgress, PrepareSummary, Split, begin, prepare_alone, publish};
use crate::corpus::Part;
use crate::error::{Error, Result};
use crate::fingerprint::{Fingerprint, FingerprintHasher};
use crate::shard::width;
use crate::tokenizer::Tokenizer;

/// The processes that prepare a corpus, as one of them sees them.
pub trait Crew {
    /// Which process this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Threads with which this process encodes.
    fn threads(&self) -> usize;

    /// The numbers of all processes, in their order. All call it, with equally many numbers, each below 2⁵³.
    fn gather(&mut self, numbers: &[u64]) -> Vec<u64>;
}

/// Why several processes cannot go on together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CrewError {
    /// A process does not see what another one has written.
    #[error(
        "process {rank} does not write into the folder {path} of the first: all processes must see the same output folder \
         under the same path",
        path = path.display()
    )]
    NotShared {
        /// The process, from 0.
        rank: usize,
        /// The output folder.
        path: PathBuf,
    },
    /// This process failed after another one, perhaps for the same reason.
    #[error("another process has failed: it says why")]
    NotFirst,
    /// A process sees other files of stories, or another tokenizer.
    #[error(
        "process {rank} has other {what} than the first: all must see the same files under the same paths"
    )]
    Differs {
        /// The process, from 0.
        rank: usize,
        /// What it sees differently.
        what: &'static str,
    },
    /// What a process has encoded was changed on the disk.
    #[error("{path} is not what a process wrote into it: look at the disk, and prepare again", path = path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}

/// What the first process says to the others.
const ALONE: u64 = 1;
const TOGETHER: u64 = 2;

/// Writes a prepared corpus as [`super::prepare`] does, in several processes that call it with the same
/// options and see the same files. The first returns the summary, and calls `progress`; `options.tokenizer`
/// of the others is not used. A stream can be read by one process only: then the first prepares alone.
///
/// # Errors
/// As [`super::prepare`], and [`Error::Crew`]. After an error of one process the others wait for it.
pub fn prepare_together(
    options: &PrepareOptions,
    crew: &mut dyn Crew,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<Option<PrepareSummary>> {
    if crew.size() == 1 {
        return prepare_alone(options, crew.threads(), progress).map(Some);
    }
    if crew.rank() > 0 {
        return follow(options, crew).map(|()| None);
    }
    if options.read_a_stream() {
        let summary = prepare_alone(options, crew.threads(), progress)?;
        crew.gather(&[ALONE]);
        return Ok(Some(summary));
    }
    lead(options, crew, progress).map(Some)
}

/// The work of the first process.
fn lead(
    options: &PrepareOptions,
    crew: &mut dyn Crew,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<PrepareSummary> {
    let corpora = Corpora::find(options)?;
    let tokenizer = begin(options, &corpora, progress)?;
    let shared = SharedFolder::create(&options.out).map_err(|e| Error::write(&options.out, e))?;
    let done = (|| {
        let (summary, shards) = encode_and_join(options, &corpora, &tokenizer, &shared, crew, progress)?;
        publish(&options.out, &tokenizer, shards, &summary).map(|()| summary)
    })();
    let summary = done.map_err(|error| first_of_all(&shared, error))?;
    drop(shared);
    crew.gather(&[TOGETHER]);
    Ok(summary)
}

/// The work of every other process.
fn follow(options: &PrepareOptions, crew: &mut dyn Crew) -> Result<()> {
    if crew.gather(&[0])[0] == ALONE {
        return Ok(());
    }
    let rank = crew.rank();
    let elsewhere = |_| CrewError::NotShared { rank, path: options.out.clone() };
    let shared = SharedFolder::join(&options.out).map_err(elsewhere)?;
    encode_part(options, &shared, crew).map_err(|error| first_of_all(&shared, error))?;
    crew.gather(&[0]); // the first has published
    shared.leave();
    Ok(())
}

/// Of several processes that fail, the first returns the reason. It removes the hidden folder.
fn first_of_all(shared: &SharedFolder, error: Error) -> Error {
    if shared.give_up() { error } else { CrewError::NotFirst.into() }
}

/// What the first process does between the first meeting and the publishing.
fn encode_and_join(
    options: &PrepareOptions,
    corpora: &Corpora,
    tokenizer: &Tokenizer,
    shared: &SharedFolder,
    crew: &mut dyn Crew,
    progress: &mut dyn FnMut(PrepareProgress),
) -> Result<(PrepareSummary, Vec<Finished>)> {
    tokenizer.save_in(shared.path())?;
    crew.gather(&[TOGETHER]);
    agree(corpora, tokenizer, crew)?;
    let splits = corpora.splits();
    let sees =
        |rank: usize| splits.iter().all(|(name, ..)| shared.path().join(parts::name(name, rank)).exists());
    if let Some(rank) = (1..crew.size()).find(|&rank| !sees(rank)) {
        return Err(CrewError::NotShared { rank, path: options.out.clone() }.into());
    }
    let (mut outputs, mut reports) = (Vec::new(), Vec::new());
    for &split in &splits {
        let target = Target::of(options, shared.path(), split.0);
        let mut output = ShardOutput::new(target, tokenizer, split.2)?;
        let read = job(split, tokenizer, crew).run(&mut output, progress)?;
        reports.push(Report::new(&read, PartSeal { bytes: 0, crc: 0 }));
        outputs.push(output);
    }
    let reports = Report::gather(&reports, crew);
    let mut joining = Joining::new(shared, width(tokenizer.vocab_size()), &reports);
    let (mut summaries, mut shards) = (Vec::new(), Vec::new());
    for (index, (output, split)) in outputs.into_iter().zip(splits).enumerate() {
        let reports: Vec<_> = reports.iter().map(|of_rank| of_rank[index]).collect();
        let (summary, mut files) = joining.join(output, split, &reports, progress)?;
        summaries.push(summary);
        shards.append(&mut files);
    }
    Ok((PrepareSummary::of(options.tokenizer.kind(), tokenizer, summaries), shards))
}

/// What every other process does between the first meeting and the last.
fn encode_part(options: &PrepareOptions, shared: &SharedFolder, crew: &mut dyn Crew) -> Result<()> {
    let tokenizer = Tokenizer::from_folder(shared.path())?;
    let corpora = Corpora::find(options)?;
    let splits = corpora.splits();
    let (rank, width) = (crew.rank(), width(tokenizer.vocab_size()));
    let part = |&(name, ..): &Split<'_>| PartWriter::create(shared, &parts::name(name, rank), width);
    // Before anybody encodes: later, the first that fails removes the folder, and nothing may come into it.
    let writers: Vec<_> = splits.iter().map(part).collect::<Result<_>>()?;
    agree(&corpora, &tokenizer, crew)?;
    let mut reports = Vec::new();
    for (split, mut writer) in splits.into_iter().zip(writers) {
        let read = job(split, &tokenizer, crew).run(&mut writer, &mut |_| ())?;
        reports.push(Report::new(&read, writer.finish()?));
    }
    Report::gather(&reports, crew);
    Ok(())
}

fn job<'j>((_, stage, corpora): Split<'j>, tokenizer: &'j Tokenizer, crew: &dyn Crew) -> SplitJob<'j> {
    let part = Part { rank: crew.rank(), of: crew.size() };
    SplitJob { corpora, part, tokenizer, stage, threads: crew.threads() }
}

/// Checks that all processes see the same files and have the same tokenizer.
fn agree(corpora: &Corpora, tokenizer: &Tokenizer, crew: &mut dyn Crew) -> Result<()> {
    let mut files = FingerprintHasher::new();
    for (name, _, corpora) in corpora.splits() {
        files.add_text(name);
        corpora.iter().for_each(|corpus| corpus.add_to(&mut files));
    }
    let halves = |print: Fingerprint| [print.0 >> 32, print.0 & 0xFFFF_FFFF];
    let prints = [halves(files.fingerprint()), halves(tokenizer.fingerprint()?)];
    let all = crew.gather(prints.as_flattened());
    let (first, _) = all.split_at(4);
    for (rank, of_rank) in all.chunks_exact(4).enumerate() {
        let what = match of_rank {
            of_rank if of_rank[..2] != first[..2] => "files of stories",
            of_rank if of_rank[2..] != first[2..] => "a tokenizer",
            _ => continue,
        };
        return Err(CrewError::Differs { rank, what }.into());
    }
    Ok(())
}
