//! The string column `text` of a parquet file: the form in which `roneneldan/TinyStories` is published.
//!
//! The `parquet` crate trusts some of what a file says, so this file does not hand it anything unseen: the
//! footer and every page's header are walked first (`thrift.rs`), the sizes they name are compared with the
//! file's own, and what still makes the crate panic is caught and becomes an error.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use parquet::basic::{Compression, Type};
use parquet::column::reader::{ColumnReader, ColumnReaderImpl};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::errors::ParquetError;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::schema::types::SchemaDescriptor;

use super::MAX_STORY_BYTES;
use super::thrift::{Fault, walk};
use crate::error::{Error, Result, one_line};

const MAGIC: &[u8] = b"PAR1";
const COLUMN: &str = "text";
/// The footer describes the row groups: megabytes for a corpus of millions of stories.
const MAX_FOOTER_BYTES: u64 = 64 << 20;
/// A page's header holds at most a value's minimum and maximum.
const MAX_PAGE_HEADER_BYTES: u64 = 16 << 20;
/// Snappy's longest copy turns 3 bytes into 64; no page can be larger than that when unpacked.
const MAX_SNAPPY_RATIO: i64 = 22;
/// Values read at a time.
const BATCH: usize = 64;

pub(super) struct ParquetStories {
    path: PathBuf,
    file: File,
    file_bytes: u64,
    reader: SerializedFileReader<File>,
    column: usize,
    row_group: usize,
    values: Option<ColumnReaderImpl<ByteArrayType>>,
    batch: std::vec::IntoIter<ByteArray>,
    rows_total: u64,
    rows_read: u64,
}

impl ParquetStories {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).map_err(|e| Error::read(path, e))?;
        let file_bytes = check_footer(path, &mut file)?;
        let copy = file.try_clone().map_err(|e| Error::read(path, e))?;
        let reader = guard(path, || SerializedFileReader::new(copy))?;
        let metadata = reader.metadata().file_metadata();
        let column = find_column(path, metadata.schema_descr())?;
        let rows_total = u64::try_from(metadata.num_rows()).unwrap_or(0);
        Ok(Self {
            path: path.to_owned(),
            file,
            file_bytes,
            reader,
            column,
            row_group: 0,
            values: None,
            batch: Vec::new().into_iter(),
            rows_total,
            rows_read: 0,
        })
    }

    pub(super) fn bytes_read(&self) -> u64 {
        let share = self.rows_read as f64 / self.rows_total.max(1) as f64;
        (share.min(1.0) * self.file_bytes as f64) as u64
    }

    pub(super) fn next_story(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(value) = self.batch.next() {
                self.rows_read += 1;
                return self.story(&value).map(Some);
            }
            if !self.next_batch()? {
                return Ok(None);
            }
        }
    }

    fn story(&self, value: &ByteArray) -> Result<String> {
        let row = self.rows_read;
        if value.len() > MAX_STORY_BYTES {
            let place = format!("row {row}");
            return Err(Error::StoryTooLong { path: self.path.clone(), place, limit: MAX_STORY_BYTES });
        }
        let text = std::str::from_utf8(value.data()).map_err(|e| {
            let found = e.valid_up_to();
            let reason = format!("row {row} of column \"{COLUMN}\" is not valid UTF-8 from its byte {found}");
            fault(&self.path, format!("{reason}: write the file again from UTF-8 text"))
        })?;
        Ok(text.to_owned())
    }

    /// Reads on; `false` after the last row group.
    fn next_batch(&mut self) -> Result<bool> {
        loop {
            if self.values.is_none() {
                if self.row_group == self.reader.num_row_groups() {
                    return Ok(false);
                }
                self.values = Some(self.open_row_group()?);
                self.row_group += 1;
            }
            let Some(reader) = &mut self.values else { continue };
            let (mut values, mut levels) = (Vec::new(), Vec::new());
            let (rows, found, _) =
                guard(&self.path, || reader.read_records(BATCH, Some(&mut levels), None, &mut values))?;
            if rows == 0 {
                self.values = None;
                continue;
            }
            // A null is no story, just as an empty string is none.
            self.rows_read += rows.saturating_sub(found) as u64;
            self.batch = values.into_iter();
            return Ok(true);
        }
    }

    fn open_row_group(&mut self) -> Result<ColumnReaderImpl<ByteArrayType>> {
        let (path, reader, index, column) = (&self.path, &self.reader, self.row_group, self.column);
        let chunk = guard(path, || Ok(reader.metadata().row_group(index).columns().get(column).cloned()))?
            .ok_or_else(|| damaged(path, format!("row group {index} lacks its columns")))?;
        check_pages(path, &mut self.file, self.file_bytes, &chunk)?;
        match guard(path, || reader.get_row_group(index)?.get_column_reader(column))? {
            ColumnReader::ByteArrayColumnReader(values) => Ok(values),
            _ => Err(damaged(path, format!("row group {index} holds no strings"))),
        }
    }
}

/// Runs the crate's code; a panic in it is an error like any other.
fn guard<T>(path: &Path, read: impl FnOnce() -> std::result::Result<T, ParquetError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(value)) => Ok(value),
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

fn find_column(path: &Path, schema: &SchemaDescriptor) -> Result<usize> {
    let columns = schema.columns();
    let Some(index) = columns.iter().position(|c| c.path().parts() == [COLUMN]) else {
        let names: Vec<String> = columns.iter().map(|c| c.path().string()).collect();
        return Err(fault(
            path,
            format!(
                "no column \"{COLUMN}\" (it has {}): rename the column that holds the stories",
                one_line(&names.join(", "))
            ),
        ));
    };
    let column = &columns[index];
    if column.physical_type() != Type::BYTE_ARRAY || column.max_rep_level() > 0 {
        return Err(fault(
            path,
            format!("column \"{COLUMN}\" is {}, not a string: write it as strings", column.physical_type()),
        ));
    }
    Ok(index)
}

/// Checks that the footer lies within the file and that every list in it does too. Returns the file's length.
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
    walk(&bytes, &mut |_, _| {}).map_err(|_| damaged(path, "its footer is cut short or garbled".into()))?;
    Ok(length)
}

/// Checks that a column chunk lies within the file, is packed in a way that can be read, and that no page in it
/// claims to be larger than its bytes can unpack to.
fn check_pages(path: &Path, file: &mut File, file_bytes: u64, chunk: &ColumnChunkMetaData) -> Result<()> {
    let packed = chunk.compression();
    if !matches!(packed, Compression::UNCOMPRESSED | Compression::SNAPPY) {
        let name = format!("{packed:?}");
        let name = name.split('(').next().unwrap_or(&name);
        return Err(fault(
            path,
            format!("column \"{COLUMN}\" is compressed with {name}: write it with snappy or uncompressed"),
        ));
    }
    let start = chunk.dictionary_page_offset().unwrap_or(chunk.data_page_offset());
    let outside = || damaged(path, format!("a column chunk at {start} lies outside its {file_bytes} bytes"));
    let mut at = u64::try_from(start).map_err(|_| outside())?;
    let length = u64::try_from(chunk.compressed_size()).map_err(|_| outside())?;
    let end = at.checked_add(length).filter(|&end| end <= file_bytes).ok_or_else(outside)?;
    while at < end {
        let page = page_header(path, file, at, end)?;
        let most = if packed == Compression::SNAPPY {
            page.packed.saturating_mul(MAX_SNAPPY_RATIO).saturating_add(64)
        } else {
            page.packed
        };
        if page.packed < 0 || page.unpacked < 0 || page.unpacked > most {
            return Err(damaged(
                path,
                format!("a page at {at} claims {} bytes in {}", page.unpacked, page.packed),
            ));
        }
        // At least one byte of header: this ends.
        at = at.saturating_add(page.header_bytes).saturating_add(page.packed as u64);
    }
    Ok(())
}

struct PageHeader {
    header_bytes: u64,
    unpacked: i64,
    packed: i64,
}

/// Field 2 of a page's header is its size unpacked, field 3 its size in the file (`parquet.thrift`).
fn page_header(path: &Path, file: &mut File, at: u64, end: u64) -> Result<PageHeader> {
    let mut room = 1 << 10;
    loop {
        let mut bytes = vec![0; room.min(end - at) as usize];
        read_at(path, file, at, &mut bytes)?;
        let (mut unpacked, mut packed) = (-1, -1);
        let walked = walk(&bytes, &mut |id, value| match id {
            2 => unpacked = value,
            3 => packed = value,
            _ => {}
        });
        match walked {
            Ok(length) => return Ok(PageHeader { header_bytes: length as u64, unpacked, packed }),
            Err(Fault::Short) if room < end - at && room < MAX_PAGE_HEADER_BYTES => room *= 4,
            Err(_) => {
                return Err(damaged(path, format!("the page header at byte {at} is cut short or garbled")));
            }
        }
    }
}

fn read_at(path: &Path, file: &mut File, at: u64, bytes: &mut [u8]) -> Result<()> {
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(bytes)).map_err(|e| Error::read(path, e))
}
