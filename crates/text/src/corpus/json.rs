//! JSON: an object per line, objects one after the other, or an array of objects or strings.

use super::record::{CorpusRecord, RecordParser, keys};
use super::source::TextSource;
use super::{MAX_STORY_BYTES, Named};
use crate::error::{Error, Result};
use offramp_files::one_line;

/// A record holds a story, its escapes and other keys.
const MAX_RECORD_BYTES: usize = 2 * MAX_STORY_BYTES;

pub(super) struct JsonStories {
    source: TextSource,
    framing: Framing,
    named: Named,
    record: Vec<u8>,
    /// Lines read.
    line: u64,
}

/// How the records follow each other in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// Nothing is read yet. `lines` says whether a record is one line, unless the file turns out to be an
    /// array.
    Unknown {
        lines: bool,
    },
    Lines,
    /// One value after the other, over any number of lines.
    Values,
    /// Between brackets. `begun` is true after the first record.
    Array {
        begun: bool,
    },
    /// After the closing bracket.
    Over,
}

impl JsonStories {
    /// With `lines`, every line is a record. A text that begins with a bracket is an array in any case.
    pub(super) fn new(source: TextSource, lines: bool, named: Named) -> Self {
        Self { source, framing: Framing::Unknown { lines }, named, record: Vec::new(), line: 1 }
    }

    /// A source that may begin after any line.
    pub(super) fn of_lines(source: TextSource, named: Named) -> Self {
        Self { framing: Framing::Lines, ..Self::new(source, true, named) }
    }

    /// Whether a file whose lines may be records is no array; for a source that is at its beginning.
    pub(super) fn is_lines(&mut self) -> Result<bool> {
        Ok(self.skip_blank()? != Some(b'['))
    }

    pub(super) fn bytes_read(&self) -> u64 {
        self.source.bytes_read()
    }

    /// Passes over the next record without a look into it; `false` after the last.
    pub(super) fn pass(&mut self) -> Result<bool> {
        self.begin_record()?;
        self.read()
    }

    /// Goes to where the next record begins, and returns its line.
    fn begin_record(&mut self) -> Result<u64> {
        let first = self.skip_blank()?;
        if let Framing::Unknown { lines } = self.framing {
            self.framing = match first {
                Some(b'[') => {
                    self.source.consume(1);
                    Framing::Array { begun: false }
                }
                _ if lines => Framing::Lines,
                _ => Framing::Values,
            };
        }
        Ok(self.line)
    }

    /// The next record.
    pub(super) fn next_record(&mut self) -> Result<Option<CorpusRecord>> {
        let line = self.begin_record()?;
        if !self.read()? {
            return Ok(None);
        }
        let reader =
            RecordParser { column: self.named.column(), bare: matches!(self.framing, Framing::Array { .. }) };
        let record = reader.read(&self.record).map_err(|e| {
            let message = e.to_string();
            // serde_json counts lines within one record.
            let reason = one_line(message.split(" at line ").next().unwrap_or(&message));
            let place = if e.line() > 1 { String::new() } else { format!(" (column {})", e.column()) };
            self.fault(line + e.line().saturating_sub(1) as u64, format!("{reason}{place}"))
        })?;
        match &record {
            CorpusRecord::Text(text) if text.len() > MAX_STORY_BYTES => return Err(self.too_long(line)),
            CorpusRecord::Missing { named: false } => self.named.lacks(|| keys(&self.record)),
            _ => self.named.has(),
        }
        Ok(Some(record))
    }

    /// An error if no record has the text column.
    pub(super) fn check(&self) -> Result<()> {
        self.named.check(self.source.path())
    }

    /// Reads the bytes of a record; `false` after the last.
    fn read(&mut self) -> Result<bool> {
        self.record.clear();
        match self.framing {
            Framing::Lines => {
                let read = self.source.append_until(b'\n', &mut self.record, MAX_RECORD_BYTES)?;
                if self.record.len() > MAX_RECORD_BYTES {
                    return Err(self.too_long(self.line));
                }
                self.line += u64::from(self.record.ends_with(b"\n"));
                Ok(read > 0)
            }
            Framing::Array { begun } => self.read_element(begun),
            Framing::Over => match self.skip_blank()? {
                None => Ok(false),
                Some(_) => Err(self.fault(self.line, "more after the array's end".into())),
            },
            _ => self.read_value(),
        }
    }

    fn read_element(&mut self, begun: bool) -> Result<bool> {
        let next = self.skip_blank()?;
        if next == Some(b']') {
            self.source.consume(1);
            self.framing = Framing::Over;
            return self.read();
        }
        if begun {
            if next != Some(b',') {
                return Err(self.fault(self.line, "neither a comma nor the array's end".into()));
            }
            self.source.consume(1);
        }
        self.framing = Framing::Array { begun: true };
        self.skip_blank()?;
        match self.read_value()? {
            true => Ok(true),
            false => Err(self.fault(self.line, "the array is cut off".into())),
        }
    }

    /// Copies the bytes of one value, however deep. The parser interprets it later.
    fn read_value(&mut self) -> Result<bool> {
        let (mut depth, mut string, mut escaped) = (0usize, false, false);
        let start = self.line;
        loop {
            let bytes = self.source.peek()?;
            let (mut used, mut over, mut lines) = (0, bytes.is_empty(), 0);
            for &byte in bytes {
                let bare = depth == 0 && !string;
                if bare && used + self.record.len() > 0 && b" \t\r\n,]}".contains(&byte) {
                    over = true;
                    break;
                }
                used += 1;
                lines += u64::from(byte == b'\n');
                match byte {
                    _ if escaped => escaped = false,
                    b'\\' if string => escaped = true,
                    b'"' => string = !string,
                    _ if string => {}
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => depth = depth.saturating_sub(1),
                    _ => {}
                }
                if depth == 0 && !string && matches!(byte, b'"' | b'}' | b']') {
                    over = true;
                    break;
                }
            }
            self.record.extend_from_slice(&bytes[..used]);
            self.source.consume(used);
            self.line += lines;
            if self.record.len() > MAX_RECORD_BYTES {
                return Err(self.too_long(start));
            }
            if over {
                return Ok(!self.record.is_empty());
            }
        }
    }

    /// Skips white space and returns the next byte without consuming it.
    fn skip_blank(&mut self) -> Result<Option<u8>> {
        loop {
            let bytes = self.source.peek()?;
            let blanks = bytes.iter().take_while(|byte| b" \t\r\n".contains(byte)).count();
            let (lines, next) =
                (bytes[..blanks].iter().filter(|&&byte| byte == b'\n').count(), bytes.get(blanks).copied());
            self.source.consume(blanks);
            self.line += lines as u64;
            if next.is_some() || blanks == 0 {
                return Ok(next);
            }
        }
    }

    fn fault(&self, line: u64, reason: String) -> Error {
        let (column, line) = (self.named.column().to_owned(), self.source.lines_before() + line);
        Error::Json { path: self.source.path().to_owned(), line, reason, column }
    }

    fn too_long(&self, line: u64) -> Error {
        let place = format!("line {}", self.source.lines_before() + line);
        Error::StoryTooLong { path: self.source.path().to_owned(), place, limit: MAX_STORY_BYTES }
    }
}
