//! The pages of a column, read and unpacked here. The `parquet` crate would unpack a page to any size.
//!
//! A page is a Thrift header and its bytes (`parquet.thrift` in the Apache Parquet format's repository). Its
//! sizes are compared with the file's size and with [`MAX_PAGE_BYTES`] before its bytes are read.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use parquet::basic::{Compression, Encoding};
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ColumnChunkMetaData;

use super::super::thrift::{ThriftFault, walk};
use super::super::unpack;
use super::{counts, damaged, fault};
use crate::error::{Error, Result};

/// The largest unpacked page. Writers aim at a mebibyte and check the size every few hundred values.
const MAX_PAGE_BYTES: i64 = 512 << 20;
/// A page's header holds at most a value's minimum and maximum.
const MAX_PAGE_HEADER_BYTES: u64 = 16 << 20;

/// One column chunk's pages in order.
pub(super) struct ColumnPages {
    path: PathBuf,
    file: File,
    codec: Compression,
    at: u64,
    end: u64,
    max_def_level: i16,
}

impl ColumnPages {
    /// Finds the pages of `chunk` and reads all their headers. Also returns the size of the largest page,
    /// unpacked.
    ///
    /// # Errors
    /// If a page does not lie within the file, claims to be too large, or is packed in a way that is not
    /// unpacked here.
    pub(super) fn open(
        path: &Path,
        file: File,
        bytes: u64,
        chunk: &ColumnChunkMetaData,
    ) -> Result<(Self, u64)> {
        let codec = chunk.compression();
        if !unpack::can_unpack(codec) {
            let name = format!("{codec:?}");
            let name = name.split('(').next().unwrap_or(&name);
            let reason = format!("it is compressed with {name}: write it with zstd, snappy or uncompressed");
            return Err(fault(path, reason));
        }
        let dictionary = chunk.dictionary_page_offset().filter(|&at| at > 0);
        let start = dictionary.unwrap_or(chunk.data_page_offset());
        let outside = || damaged(path, format!("a column chunk at {start} lies outside its {bytes} bytes"));
        let at = u64::try_from(start).map_err(|_| outside())?;
        let length = u64::try_from(chunk.compressed_size()).map_err(|_| outside())?;
        let end = at.checked_add(length).filter(|&end| end <= bytes).ok_or_else(outside)?;
        let max_def_level = chunk.column_descr().max_def_level();
        let mut pages = Self { path: path.to_owned(), file, codec, at, end, max_def_level };
        let mut largest = 0;
        while let Some(header) = pages.next_header()? {
            largest = largest.max(header.unpacked as u64);
        }
        pages.at = at;
        Ok((pages, largest))
    }

    /// The next page's header. Skips the page's bytes, which begin at [`PageHeader::at`].
    fn next_header(&mut self) -> Result<Option<PageHeader>> {
        if self.at >= self.end {
            return Ok(None);
        }
        let (path, at) = (&self.path, self.at);
        let (length, header) = read_header(path, &mut self.file, at, self.end)?;
        let (unpacked, packed) = (header.unpacked, header.packed);
        if unpacked.max(packed) > MAX_PAGE_BYTES {
            let reason = format!(
                "the page at byte {at} has {} bytes, and {MAX_PAGE_BYTES} are read at most: write fewer rows per page \
                 (with pyarrow, write_batch_size=16)",
                unpacked.max(packed)
            );
            return Err(fault(path, reason));
        }
        let raw = self.codec == Compression::UNCOMPRESSED && unpacked > packed;
        let end = u64::try_from(packed).ok().and_then(|packed| (at + length).checked_add(packed));
        let Some(end) = end.filter(|&end| end <= self.end && unpacked >= 0 && !raw) else {
            return Err(damaged(path, format!("a page at {at} claims {unpacked} bytes in {packed}")));
        };
        // A header has at least one byte, so the loop ends.
        self.at = end;
        Ok(Some(PageHeader { at: at + length, ..header }))
    }

    fn next_page(&mut self) -> Result<Option<Page>> {
        while let Some(header) = self.next_header()? {
            let (path, at) = (self.path.clone(), header.at);
            let broken = |what: String| damaged(&path, format!("the page at byte {at}: {what}"));
            let mut packed = vec![0; header.packed as usize];
            read_at(&path, &mut self.file, at, &mut packed)?;
            let size = header.unpacked as usize;
            // In version 2 of pages, the levels before the packed part.
            let levels = usize::try_from(header.def_levels.saturating_add(header.rep_levels));
            let levels = levels.ok().filter(|&levels| levels <= packed.len().min(size));
            let levels = levels.ok_or_else(|| broken("levels longer than it".into()))?;
            let unpacked = match (header.is_packed, size == levels) {
                (false, _) => packed,
                // A page without a value has nothing to unpack.
                (true, true) => packed[..levels].to_vec(),
                (true, false) => {
                    let values = unpack::page(self.codec, &packed[levels..], size - levels);
                    let values = values.map_err(|e| broken(e.to_string()))?;
                    if levels == 0 { values } else { [&packed[..levels], &values].concat() }
                }
            };
            if let Some(page) = header.page(unpacked).map_err(broken)? {
                counts::check(&page, self.max_def_level).map_err(broken)?;
                return Ok(Some(page));
            }
        }
        Ok(None)
    }
}

impl Iterator for ColumnPages {
    type Item = ParquetResult<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for ColumnPages {
    fn get_next_page(&mut self) -> ParquetResult<Option<Page>> {
        self.next_page().map_err(|error| ParquetError::External(Box::new(error)))
    }

    /// Only a search for a row calls this, and rows are read in order here.
    fn peek_next_page(&mut self) -> ParquetResult<Option<PageMetadata>> {
        Ok(None)
    }

    fn skip_next_page(&mut self) -> ParquetResult<()> {
        self.get_next_page().map(drop)
    }
}

/// What a page's header says. A field that the header lacks is -1.
struct PageHeader {
    /// Where the page's bytes begin.
    at: u64,
    kind: i64,
    unpacked: i64,
    packed: i64,
    values: i64,
    encoding: i64,
    /// Of the definition levels: their encoding in version 1 of pages, their length in version 2.
    def_encoding: i64,
    rep_encoding: i64,
    def_levels: i64,
    rep_levels: i64,
    nulls: i64,
    rows: i64,
    is_packed: bool,
}

impl PageHeader {
    const NOTHING: Self = Self {
        at: 0,
        kind: -1,
        unpacked: -1,
        packed: -1,
        values: -1,
        encoding: -1,
        def_encoding: -1,
        rep_encoding: -1,
        def_levels: 0,
        rep_levels: 0,
        nulls: 0,
        rows: 0,
        is_packed: true,
    };

    /// Sets a number of the header. Field 5 is the data page, 7 the dictionary page, 8 the data page of
    /// version 2.
    fn set(&mut self, place: (i64, i64), value: i64) {
        match place {
            (0, 1) => self.kind = value,
            (0, 2) => self.unpacked = value,
            (0, 3) => self.packed = value,
            (5 | 7 | 8, 1) => self.values = value,
            (5 | 7, 2) | (8, 4) => self.encoding = value,
            (5, 3) => self.def_encoding = value,
            (5, 4) => self.rep_encoding = value,
            (8, 2) => self.nulls = value,
            (8, 3) => self.rows = value,
            (8, 5) => self.def_levels = value,
            (8, 6) => self.rep_levels = value,
            (8, 7) => self.is_packed = value != 0,
            _ => {}
        }
    }

    /// The page with these bytes; `None` if it is an index page.
    fn page(&self, bytes: Vec<u8>) -> std::result::Result<Option<Page>, String> {
        let number = |value: i64| u32::try_from(value).map_err(|_| "a number is missing".to_owned());
        let (buf, num_values) = (bytes.into(), number(self.values));
        Ok(Some(match self.kind {
            0 => Page::DataPage {
                buf,
                num_values: num_values?,
                encoding: encoding(self.encoding)?,
                def_level_encoding: encoding(self.def_encoding)?,
                rep_level_encoding: encoding(self.rep_encoding)?,
                statistics: None,
            },
            2 => Page::DictionaryPage {
                buf,
                num_values: num_values?,
                encoding: encoding(self.encoding)?,
                is_sorted: false,
            },
            3 => Page::DataPageV2 {
                buf,
                num_values: num_values?,
                encoding: encoding(self.encoding)?,
                num_nulls: number(self.nulls)?,
                num_rows: number(self.rows)?,
                def_levels_byte_len: number(self.def_levels)?,
                rep_levels_byte_len: number(self.rep_levels)?,
                is_compressed: false,
                statistics: None,
            },
            _ => return Ok(None),
        }))
    }
}

fn encoding(number: i64) -> std::result::Result<Encoding, String> {
    #[allow(deprecated)]
    Ok(match number {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        4 => Encoding::BIT_PACKED,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        other => return Err(format!("encoding {other} is unknown")),
    })
}

/// Reads the header at `at` and returns its length and contents.
fn read_header(path: &Path, file: &mut File, at: u64, end: u64) -> Result<(u64, PageHeader)> {
    let mut capacity = 1 << 10;
    loop {
        let mut bytes = vec![0; capacity.min(end - at) as usize];
        read_at(path, file, at, &mut bytes)?;
        let mut header = PageHeader::NOTHING;
        match walk(&bytes, &[], &mut |place, value| header.set(place, value)) {
            Ok(length) => return Ok((length as u64, header)),
            Err(ThriftFault::Short) if capacity < end - at && capacity < MAX_PAGE_HEADER_BYTES => {
                capacity *= 4
            }
            Err(_) => {
                return Err(damaged(path, format!("the page header at byte {at} is cut short or garbled")));
            }
        }
    }
}

pub(super) fn read_at(path: &Path, file: &mut File, at: u64, bytes: &mut [u8]) -> Result<()> {
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(bytes)).map_err(|e| Error::read(path, e))
}
