//! What the other processes of a crew have encoded, appended to the shards that the first has begun.

use std::sync::mpsc::sync_channel;
use std::thread;

use offramp_files::{Finished, SharedFolder};

use super::crew::Crew;
use super::encode::PartRead;
use super::output::ShardOutput;
use super::parts::{self, PartReader, PartSeal};
use super::{PrepareProgress, Split, SplitSummary, Stage};
use crate::corpus::{Corpus, CorpusCounts};
use crate::error::{Error, Result};

/// Chunks that are read before they are written.
const AHEAD: usize = 2;

/// What a process says about its part of a split.
#[derive(Debug, Clone, Copy)]
pub(super) struct Report {
    counts: CorpusCounts,
    seal: PartSeal,
    /// The first and the last file of the part, if others read in them too: the file's number, and stories.
    shared: [Option<(usize, u64)>; 2],
}

/// Numbers of a report.
const NUMBERS: usize = 10;

impl Report {
    pub(super) fn new(read: &PartRead, seal: PartSeal) -> Self {
        let mut shared = read.shared.iter().copied();
        Self { counts: read.counts, seal, shared: [shared.next(), shared.next()] }
    }

    fn numbers(&self) -> [u64; NUMBERS] {
        let CorpusCounts { stories, skipped, crlf, lines } = self.counts;
        let [first, last] =
            self.shared.map(|file| file.map_or([0, 0], |(file, stories)| [file as u64 + 1, stories]));
        let PartSeal { bytes, crc } = self.seal;
        [stories, skipped, crlf, lines, bytes, crc.into(), first[0], first[1], last[0], last[1]]
    }

    fn of(numbers: &[u64; NUMBERS]) -> Self {
        let &[stories, skipped, crlf, lines, bytes, crc, first, of_first, last, of_last] = numbers;
        let file = |number: u64, stories| Some((usize::try_from(number).ok()?.checked_sub(1)?, stories));
        Self {
            counts: CorpusCounts { stories, skipped, crlf, lines },
            seal: PartSeal { bytes, crc: crc as u32 },
            shared: [file(first, of_first), file(last, of_last)],
        }
    }

    /// The reports of all processes, each about every split.
    pub(super) fn gather(own: &[Self], crew: &mut dyn Crew) -> Vec<Vec<Self>> {
        let numbers: Vec<u64> = own.iter().flat_map(Self::numbers).collect();
        let all = crew.gather(&numbers);
        let (reports, _) = all.as_chunks::<NUMBERS>();
        reports.chunks(own.len()).map(|of_rank| of_rank.iter().map(Self::of).collect()).collect()
    }
}

/// The joining of all splits.
pub(super) struct Joining<'f> {
    folder: &'f SharedFolder,
    /// Bytes of an id.
    width: usize,
    bytes_read: u64,
    bytes_total: u64,
}

impl<'f> Joining<'f> {
    pub(super) fn new(folder: &'f SharedFolder, width: usize, reports: &[Vec<Report>]) -> Self {
        let bytes_total = reports.iter().flatten().map(|report| report.seal.bytes).sum();
        Self { folder, width, bytes_read: 0, bytes_total }
    }

    /// Appends the parts of all but the first process, and closes the split.
    pub(super) fn join(
        &mut self,
        mut output: ShardOutput<'_>,
        (name, _, corpora): Split<'_>,
        reports: &[Report],
        progress: &mut dyn FnMut(PrepareProgress),
    ) -> Result<(SplitSummary, Vec<Finished>)> {
        check_shared(corpora, reports)?;
        for (rank, report) in reports.iter().enumerate().skip(1) {
            let path = self.folder.path().join(parts::name(name, rank));
            let part = PartReader::open(&path, self.width, report.seal)?;
            self.append(part, &mut output, progress)?;
        }
        let counts = reports.iter().fold(CorpusCounts::default(), |sum, report| sum + report.counts);
        output.finish(counts)
    }

    /// Appends a part, which a thread reads ahead.
    fn append(
        &mut self,
        part: PartReader,
        output: &mut ShardOutput<'_>,
        progress: &mut dyn FnMut(PrepareProgress),
    ) -> Result<()> {
        let (sender, chunks) = sync_channel(AHEAD);
        thread::scope(|scope| {
            // It ends when nobody takes the chunks any more.
            scope.spawn(move || part.into_iter().try_for_each(|chunk| sender.send(chunk)));
            for chunk in chunks {
                let chunk = chunk?;
                let tokens = output.write_stories(&chunk.tokens, chunk.lengths.iter().copied())?;
                self.bytes_read += chunk.bytes;
                let (bytes_read, bytes_total) = (self.bytes_read, self.bytes_total);
                progress(PrepareProgress {
                    stage: Stage::Join,
                    bytes_read,
                    bytes_total,
                    tokens,
                    processes: 1,
                });
            }
            Ok(())
        })
    }
}

/// An error if a file of which several processes have read a part has no story in any. Reading it again,
/// alone and whole, says why.
fn check_shared(corpora: &[Corpus], reports: &[Report]) -> Result<()> {
    let shared = || reports.iter().flat_map(|report| report.shared.into_iter().flatten());
    for (file, _) in shared() {
        let stories: u64 = shared().filter(|(other, _)| *other == file).map(|(_, stories)| stories).sum();
        if let (0, Some(corpus)) = (stories, corpora.get(file)) {
            corpus.stories()?.try_for_each(|story| story.map(drop))?;
            return Err(Error::NoStories { path: corpus.path().to_owned() });
        }
    }
    Ok(())
}
