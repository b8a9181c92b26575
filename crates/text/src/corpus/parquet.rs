//! A string column of a parquet file: the form of most published corpora.
//!
//! The `parquet` crate trusts some of what a file says. So it gets nothing unchecked: the footer is walked
//! first (`thrift.rs`, `footer.rs`), pages are read, unpacked and counted here (`pages.rs`, `counts.rs`), and
//! a panic of the crate is caught and becomes an error.

mod counts;
mod footer;
mod pages;

use std::fs::File;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::basic::Type;
use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use super::record::CorpusRecord;
use super::{MAX_STORY_BYTES, Named};
use crate::error::{Error, Result};
use offramp_files::one_line;
use pages::{ColumnPages, read_at};

const MAGIC: &[u8] = b"PAR1";
/// The footer describes the row groups: megabytes for a corpus of millions of stories.
const MAX_FOOTER_BYTES: u64 = 64 << 20;
/// Values read at a time, if their pages are not large.
const BATCH: u64 = 64;

pub(super) struct ParquetStories {
    path: PathBuf,
    file: File,
    file_bytes: u64,
    reader: SerializedFileReader<File>,
    column: usize,
    row_group: usize,
    values: Option<ColumnReaderImpl<ByteArrayType>>,
    /// Values read at a time. A value may be as long as its page, and with delta encoding each value of a
    /// page may be.
    batch_rows: usize,
    batch: std::vec::IntoIter<Option<ByteArray>>,
    present: i16, // the definition level of a value that is not null
    rows_total: u64,
    rows_read: u64,
    /// The rows of the open row group, as the footer counts them.
    group: Range<u64>,
    /// The bytes of the file in which the rows begin that are wanted.
    part: Range<u64>,
}

impl ParquetStories {
    pub(super) fn open(path: &Path, mut named: Named, part: Range<u64>) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| Error::read(path, e))?;
        let file_bytes = check_footer(path, &mut file)?;
        let copy = file.try_clone().map_err(|e| Error::read(path, e))?;
        let reader = guard(path, || SerializedFileReader::new(copy))?;
        let metadata = reader.metadata().file_metadata();
        let column = find_column(path, metadata.schema_descr(), &mut named)?;
        let present = metadata.schema_descr().column(column).max_def_level();
        let rows_total = u64::try_from(metadata.num_rows()).unwrap_or(0);
        Ok(Self {
            path: path.to_owned(),
            file,
            file_bytes,
            reader,
            column,
            row_group: 0,
            values: None,
            batch_rows: 1,
            batch: Vec::new().into_iter(),
            present,
            rows_total,
            rows_read: 0,
            group: 0..0,
            part,
        })
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.place(self.rows_read)
    }

    /// The byte that stands for a row: its share of the file.
    fn place(&self, row: u64) -> u64 {
        let share = row as f64 / self.rows_total.max(1) as f64;
        (share.min(1.0) * self.file_bytes as f64) as u64
    }

    pub(super) fn next_record(&mut self) -> Result<Option<CorpusRecord>> {
        loop {
            if let Some(value) = self.batch.next() {
                let place = self.place(self.rows_read.min(last(&self.group)));
                self.rows_read += 1;
                if place < self.part.start {
                    continue;
                }
                if place >= self.part.end {
                    return Ok(None);
                }
                let record = value.map_or(Ok(CorpusRecord::of(None)), |value| self.story(&value));
                return record.map(Some);
            }
            if !self.next_batch()? {
                return Ok(None);
            }
        }
    }

    fn story(&self, value: &ByteArray) -> Result<CorpusRecord> {
        let row = self.rows_read;
        if value.len() > MAX_STORY_BYTES {
            let place = format!("row {row}");
            return Err(Error::StoryTooLong { path: self.path.clone(), place, limit: MAX_STORY_BYTES });
        }
        let text = std::str::from_utf8(value.data()).map_err(|e| {
            let reason =
                format!("the text of row {row} is not valid UTF-8 from its byte {}", e.valid_up_to());
            fault(&self.path, format!("{reason}: write the file again from UTF-8 text"))
        })?;
        Ok(CorpusRecord::of(Some(text.to_owned())))
    }

    /// Reads the next batch; `false` after the last row group.
    fn next_batch(&mut self) -> Result<bool> {
        loop {
            if self.values.is_none() {
                if self.row_group == self.reader.num_row_groups() {
                    return Ok(false);
                }
                let rows =
                    guard(&self.path, || Ok(self.reader.metadata().row_group(self.row_group).num_rows()))?;
                let first = self.group.end;
                // Where a group begins is the footer's word, so that readers which skip others agree on it.
                self.group = first..first.saturating_add(u64::try_from(rows).unwrap_or(0));
                self.rows_read = first;
                if self.place(last(&self.group)) < self.part.start {
                    self.row_group += 1;
                    continue;
                }
                self.values = Some(self.open_row_group()?);
                self.row_group += 1;
            }
            let Some(reader) = &mut self.values else { continue };
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let (rows, ..) = guard(&self.path, || {
                reader.read_records(self.batch_rows, Some(&mut levels), None, &mut values)
            })?;
            if rows == 0 {
                self.values = None;
                continue;
            }
            // A required column has no definition levels.
            let mut values = values.into_iter();
            let value = |row: usize| match levels.get(row) {
                Some(&level) if level < self.present => None,
                _ => values.next(),
            };
            self.batch = (0..rows).map(value).collect::<Vec<_>>().into_iter();
            return Ok(true);
        }
    }

    fn open_row_group(&mut self) -> Result<ColumnReaderImpl<ByteArrayType>> {
        let (path, reader, index, column) = (&self.path, &self.reader, self.row_group, self.column);
        let chunk = guard(path, || Ok(reader.metadata().row_group(index).columns().get(column).cloned()))?
            .ok_or_else(|| damaged(path, format!("row group {index} lacks its columns")))?;
        if chunk.column_type() != Type::BYTE_ARRAY {
            return Err(damaged(path, format!("row group {index} holds no strings")));
        }
        let file = self.file.try_clone().map_err(|e| Error::read(path, e))?;
        let (pages, largest) = ColumnPages::open(path, file, self.file_bytes, &chunk)?;
        self.batch_rows = (MAX_STORY_BYTES as u64 / largest.max(1)).clamp(1, BATCH) as usize;
        let description = chunk.column_descr_ptr();
        guard(path, || Ok(ColumnReaderImpl::new(description, Box::new(pages))))
    }
}

/// The last row of a group, or the first, if there is none. Rows beyond what the footer counts stand there
/// too.
fn last(group: &Range<u64>) -> u64 {
    group.end.saturating_sub(1).max(group.start)
}

/// Runs the crate's code and turns a panic into an error.
fn guard<T>(path: &Path, read: impl FnOnce() -> std::result::Result<T, ParquetError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(ParquetError::External(error))) => Err(match error.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(error) => damaged(path, one_line(&error.to_string())),
        }),
        Ok(Err(error)) => Err(damaged(path, one_line(&error.to_string()))),
        Err(_) => Err(damaged(path, "its contents contradict each other".into())),
    }
}

fn fault(path: &Path, reason: String) -> Error {
    Error::Parquet { path: path.to_owned(), reason }
}

fn damaged(path: &Path, reason: String) -> Error {
    fault(path, format!("damaged parquet file: {reason}: fetch or write it again"))
}

fn find_column(path: &Path, schema: &SchemaDescriptor, named: &mut Named) -> Result<usize> {
    let columns = schema.columns();
    let Some(index) = columns.iter().position(|column| column.path().string() == named.column()) else {
        named.lacks(|| columns.iter().map(|column| column.path().string()).collect());
        return named.check(path).map(|()| 0);
    };
    let column = &columns[index];
    if column.physical_type() != Type::BYTE_ARRAY || column.max_rep_level() > 0 {
        let (name, kind) = (named.column(), column.physical_type());
        return Err(fault(path, format!("column {name:?} is {kind}, not a string: write it as strings")));
    }
    Ok(index)
}

/// Checks that the footer, and every list in it, lies within the file. Returns the file's length.
fn check_footer(path: &Path, file: &mut File) -> Result<u64> {
    let length = file.metadata().map_err(|e| Error::read(path, e))?.len();
    let mut tail = [0; 8];
    if length < 12 {
        return Err(damaged(path, format!("{length} bytes are too few for one")));
    }
    read_at(path, file, length - 8, &mut tail)?;
    if &tail[4..] == b"PARE" {
        return Err(fault(path, "the file is encrypted: write it without encryption".into()));
    }
    if &tail[4..] != MAGIC {
        return Err(damaged(path, "it does not end with PAR1".into()));
    }
    let footer = u64::from(u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]));
    if footer > MAX_FOOTER_BYTES || footer + 12 > length {
        return Err(damaged(path, format!("a footer of {footer} bytes in a file of {length}")));
    }
    let mut bytes = vec![0; footer as usize];
    read_at(path, file, length - 8 - footer, &mut bytes)?;
    footer::check(&bytes).map_err(|reason| damaged(path, reason.into()))?;
    Ok(length)
}
