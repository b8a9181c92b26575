//! Comma-separated values: a header, then one story per row in the text column (RFC 4180; quoted fields may
//! hold line breaks).

use std::io::{self, Read};

use csv::{ByteRecord, ErrorKind, ReaderBuilder};

use super::record::CorpusRecord;
use super::source::TextSource;
use super::{MAX_STORY_BYTES, Named};
use crate::error::{Error, Result};

/// A row holds a story, its quotes and other fields.
const MAX_ROW_BYTES: usize = 2 * MAX_STORY_BYTES;

pub(super) struct CsvStories {
    rows: csv::Reader<Rationed>,
    named: Named,
    row: ByteRecord,
    /// The index of the text column, once the header is read.
    field: Option<usize>,
    /// The number of fields in the header.
    fields: usize,
}

/// A source that fails when a row is too long. Without it, an unclosed quote would read the whole file.
struct Rationed {
    source: TextSource,
    ration: usize,
}

impl Read for Rationed {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.ration == 0 {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let most = out.len().min(self.ration);
        let count = self.source.read(&mut out[..most])?;
        self.ration -= count;
        Ok(count)
    }
}

impl CsvStories {
    pub(super) fn new(source: TextSource, named: Named) -> Self {
        let rows = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .from_reader(Rationed { source, ration: MAX_ROW_BYTES });
        Self { rows, named, row: ByteRecord::new(), field: None, fields: 0 }
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.rows.get_ref().source.bytes_read()
    }

    pub(super) fn next_record(&mut self) -> Result<Option<CorpusRecord>> {
        let field = match self.field {
            Some(field) => field,
            None => match self.header()? {
                Some(field) => *self.field.insert(field),
                None => return Ok(None),
            },
        };
        if !self.read_row()? {
            return Ok(None);
        }
        // An unquoted comma or line break: the field that is read is not the whole story.
        if self.row.len() != self.fields {
            let (found, expected) = (self.row.len(), self.fields);
            return Err(self.fault(&format!("{found} fields, and the header has {expected}")));
        }
        let bytes = &self.row[field];
        if bytes.len() > MAX_STORY_BYTES {
            return Err(self.too_long());
        }
        let text = std::str::from_utf8(bytes).map_err(|_| self.fault("not valid UTF-8"))?;
        Ok(Some(CorpusRecord::of(Some(text.to_owned()))))
    }

    /// The index of the text column; `None` if there is no header.
    fn header(&mut self) -> Result<Option<usize>> {
        if !self.read_row()? {
            return Ok(None);
        }
        let names: Vec<String> =
            self.row.iter().map(|name| String::from_utf8_lossy(name).trim().to_owned()).collect();
        self.fields = names.len();
        let field = names.iter().position(|name| name == self.named.column());
        if field.is_none() {
            self.named.lacks(|| names);
            self.named.check(self.rows.get_ref().source.path())?;
        }
        Ok(field)
    }

    fn read_row(&mut self) -> Result<bool> {
        self.rows.get_mut().ration = MAX_ROW_BYTES;
        let read = self.rows.read_byte_record(&mut self.row);
        read.map_err(|error| match error.into_kind() {
            ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => self.too_long(),
            ErrorKind::Io(error) => match error.downcast::<Error>() {
                Ok(ours) => ours,
                Err(error) => self.rows.get_ref().source.fault(error),
            },
            other => self.fault(&format!("{other:?}")),
        })
    }

    fn line(&self) -> u64 {
        self.row.position().unwrap_or_else(|| self.rows.position()).line()
    }

    fn fault(&self, reason: &str) -> Error {
        let path = self.rows.get_ref().source.path().to_owned();
        Error::Csv { path, line: self.line(), reason: reason.to_owned() }
    }

    fn too_long(&self) -> Error {
        let path = self.rows.get_ref().source.path().to_owned();
        Error::StoryTooLong { path, place: format!("line {}", self.line()), limit: MAX_STORY_BYTES }
    }
}
