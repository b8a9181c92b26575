//! The bytes of a corpus, from a file or from a stream that can be read once. Packed bytes are unpacked on
//! the way.
//!
//! The first bytes decide whether a file is packed, not its name: no UTF-8 text begins like gzip or
//! Zstandard.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::unpack::{Gzip, Zstd};
use crate::error::{Error, Result};
use offramp_files::one_line;

const BUFFER_BYTES: usize = 256 << 10;
const BYTE_ORDER_MARK: &[u8] = "\u{FEFF}".as_bytes();

/// First bytes of packed files that are not unpacked here.
const FOREIGN: [(&[u8], &str); 4] = [
    (b"\xFD7zXZ\0", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"\x04\x22\x4D\x18", "lz4"),
    (b"7z\xBC\xAF\x27\x1C", "7-Zip"),
];

/// Where the bytes are.
#[derive(Clone)]
pub(super) enum CorpusInput {
    File,
    Stream(Arc<Mutex<InputStream>>),
}

impl CorpusInput {
    pub(super) fn stream(from: impl Read + Send + 'static) -> Self {
        Self::Stream(Arc::new(Mutex::new(InputStream { from: Box::new(from), begun: false, kept: None })))
    }
}

impl std::fmt::Debug for CorpusInput {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            CorpusInput::File => "File",
            CorpusInput::Stream(_) => "Stream",
        })
    }
}

/// Standard input or a pipe. It can be read once, unless its bytes are kept on disk.
pub(super) struct InputStream {
    from: Box<dyn Read + Send>,
    begun: bool,
    kept: Option<Spool>,
}

/// The bytes read so far, in a file without a name.
struct Spool {
    file: File,
    bytes: u64,
}

impl InputStream {
    /// From now on, keeps what is read.
    pub(super) fn keep(&mut self) -> io::Result<()> {
        if self.kept.is_none() {
            self.kept = Some(Spool { file: tempfile::tempfile()?, bytes: 0 });
        }
        Ok(())
    }

    fn read_from(&mut self, at: u64, out: &mut [u8]) -> io::Result<usize> {
        let Some(kept) = &mut self.kept else { return self.from.read(out) };
        if at < kept.bytes {
            let count = out.len().min(usize::try_from(kept.bytes - at).unwrap_or(usize::MAX));
            kept.file.seek(SeekFrom::Start(at))?;
            return kept.file.read(&mut out[..count]);
        }
        let count = self.from.read(out)?;
        let written = kept.file.seek(SeekFrom::Start(at)).and_then(|_| kept.file.write_all(&out[..count]));
        written.map_err(|e| {
            let folder = std::env::temp_dir();
            io::Error::new(
                e.kind(),
                format!("no space to keep it in {} for a second reading", folder.display()),
            )
        })?;
        kept.bytes += count as u64;
        Ok(count)
    }
}

/// A reader of the stream, with its own position.
struct StreamReader {
    stream: Arc<Mutex<InputStream>>,
    at: u64,
}

impl Read for StreamReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.stream.lock().unwrap_or_else(PoisonError::into_inner).read_from(self.at, out)?;
        self.at += count as u64;
        Ok(count)
    }
}

/// Counts the bytes taken from the file, before unpacking.
struct Counted<R> {
    from: R,
    taken: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    /// Fills `out` unless the file ends, so that the count depends on the file alone and not on how much the
    /// system gives at a time: several readers of a file agree where a record begins.
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let mut count = 0;
        while count < out.len() {
            match self.from.read(&mut out[count..]) {
                Ok(0) => break,
                Ok(read) => count += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

/// The text of a corpus as bytes, without a byte order mark.
pub(super) struct TextSource {
    reader: Option<BufReader<Box<dyn Read + Send>>>, // set once the first bytes are checked
    raw: Option<Box<dyn Read + Send>>,
    taken: Arc<AtomicU64>,
    path: PathBuf,
    packed: Option<&'static str>,
    /// Bytes of text returned, with the byte order mark and with those before the place of the beginning.
    pub(super) offset: u64,
    /// The place in the file where the reading began.
    start: u64,
}

impl TextSource {
    /// Opens the source. Nothing is read until the first byte is asked for.
    pub(super) fn open(path: &Path, place: &CorpusInput) -> Result<Self> {
        let taken = Arc::new(AtomicU64::new(0));
        let raw: Box<dyn Read + Send> = match place {
            CorpusInput::File => {
                let from = File::open(path).map_err(|e| Error::read(path, e))?;
                Box::new(Counted { from, taken: taken.clone() })
            }
            CorpusInput::Stream(stream) => {
                let mut begun = stream.lock().unwrap_or_else(PoisonError::into_inner);
                if begun.begun && begun.kept.is_none() {
                    return Err(Error::ComesOnce { path: path.to_owned() });
                }
                begun.begun = true;
                Box::new(Counted {
                    from: StreamReader { stream: stream.clone(), at: 0 },
                    taken: taken.clone(),
                })
            }
        };
        let path = path.to_owned();
        Ok(Self { reader: None, raw: Some(raw), taken, path, packed: None, offset: 0, start: 0 })
    }

    /// The text in `bytes` of a file that is not packed.
    pub(super) fn within(path: &Path, bytes: Range<u64>) -> Result<Self> {
        let start = bytes.start;
        let open = || {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::Start(start))?;
            Ok(file.take(bytes.end.saturating_sub(start)))
        };
        let taken = Arc::new(AtomicU64::new(start));
        let from = open().map_err(|e| Error::read(path, e))?;
        let raw: Box<dyn Read + Send> = Box::new(Counted { from, taken: taken.clone() });
        // Only the first bytes of a file say what it is.
        let (raw, reader) = match start {
            0 => (Some(raw), None),
            _ => (None, Some(BufReader::with_capacity(BUFFER_BYTES, raw))),
        };
        Ok(Self { reader, raw, taken, path: path.to_owned(), packed: None, offset: start, start })
    }

    /// Whether the first bytes are those of a packed file.
    pub(super) fn is_packed(&mut self) -> Result<bool> {
        self.begin()?;
        Ok(self.packed.is_some())
    }

    /// Line ends before the place where the reading began, counted again for the line of an error.
    pub(super) fn lines_before(&self) -> u64 {
        let Ok(file) = File::open(&self.path) else { return 0 };
        let bytes = BufReader::with_capacity(BUFFER_BYTES, file).take(self.start).bytes();
        bytes.map_while(io::Result::ok).filter(|&byte| byte == b'\n').count() as u64
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file read so far, before unpacking.
    pub(super) fn bytes_read(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }

    /// Turns a read error into an error of this crate.
    pub(super) fn fault(&self, error: io::Error) -> Error {
        match self.packed {
            // An error without a code of the system comes from the unpacking.
            Some(packed) if error.raw_os_error().is_none() => {
                Error::Packed { path: self.path.clone(), packed, reason: one_line(&error.to_string()) }
            }
            _ => Error::read(&self.path, error),
        }
    }

    /// The bytes in the buffer, which is filled first if it is empty. An empty slice means the end.
    pub(super) fn peek(&mut self) -> Result<&[u8]> {
        self.begin()?;
        let reader = self.reader.as_mut().expect("begun");
        // Two calls, because the borrow of the first would outlast the error.
        if let Err(error) = reader.fill_buf() {
            return Err(self.fault(error));
        }
        Ok(self.reader.as_ref().expect("begun").buffer())
    }

    /// Consumes `count` of the bytes that `peek` returned.
    pub(super) fn consume(&mut self, count: usize) {
        self.offset += count as u64;
        if let Some(reader) = &mut self.reader {
            reader.consume(count);
        }
    }

    /// Appends the text up to the next `end`, inclusive, to `buffer`. Returns the number of bytes, 0 at the
    /// end of the file. Stops once `buffer` is longer than `limit`.
    pub(super) fn append_until(&mut self, end: u8, buffer: &mut Vec<u8>, limit: usize) -> Result<usize> {
        self.begin()?;
        let capacity = limit.saturating_sub(buffer.len()) as u64 + 1;
        let reader = self.reader.as_mut().expect("begun");
        match reader.take(capacity).read_until(end, buffer) {
            Ok(count) => {
                self.offset += count as u64;
                Ok(count)
            }
            Err(error) => Err(self.fault(error)),
        }
    }

    /// Checks the first bytes, once.
    fn begin(&mut self) -> Result<()> {
        let Some(mut raw) = self.raw.take() else { return Ok(()) };
        let mut first = Vec::new();
        if let Err(error) = (&mut raw).take(6).read_to_end(&mut first) {
            return Err(self.fault(error));
        }
        if let Some((_, name)) = FOREIGN.iter().find(|(magic, _)| first.starts_with(magic)) {
            return Err(Error::Foreign { path: self.path.clone(), name: (*name).to_owned() });
        }
        let packed = Packing::of(&first);
        let whole = BufReader::with_capacity(BUFFER_BYTES, io::Cursor::new(first).chain(raw));
        let text: Box<dyn Read + Send> = match packed {
            None => Box::new(whole),
            Some(Packing::Gzip) => Box::new(Gzip::new(whole)),
            Some(Packing::Zstd) => Box::new(Zstd::new(whole)),
        };
        self.packed = packed.map(Packing::name);
        let mut mark = Vec::new();
        let mut text = text;
        if let Err(error) = (&mut text).take(BYTE_ORDER_MARK.len() as u64).read_to_end(&mut mark) {
            return Err(self.fault(error));
        }
        if mark == BYTE_ORDER_MARK {
            self.offset = mark.len() as u64;
            mark.clear();
        }
        let text: Box<dyn Read + Send> = Box::new(io::Cursor::new(mark).chain(text));
        self.reader = Some(BufReader::with_capacity(BUFFER_BYTES, text));
        Ok(())
    }
}

impl Read for TextSource {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.begin().map_err(io::Error::other)?;
        let count = self.reader.as_mut().expect("begun").read(out)?;
        self.offset += count as u64;
        Ok(count)
    }
}

#[derive(Clone, Copy)]
enum Packing {
    Gzip,
    Zstd,
}

impl Packing {
    /// Magic numbers of RFC 1952 and RFC 8878; a Zstandard file may begin with a skippable frame.
    fn of(first: &[u8]) -> Option<Self> {
        match first {
            [0x1F, 0x8B, ..] => Some(Self::Gzip),
            [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Some(Self::Zstd),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}
