//! One file: downloaded beside its place, from where the last download ended, and checked.

use crate::address::{host, is_digest_like};
use crate::client::{Answer, Asked, Hub, is_timeout};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::fetch::{Event, Observer};
use crate::lock::Lock;
use offramp_files::legible;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicBool, Ordering};
use ureq::http::Method;

/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;
/// The longest file whose length nobody says; these are small texts.
const MAX_UNKNOWN: u64 = 64 << 20;
/// Breaks of the connection without anything new between them, after which a download fails.
const BREAKS: u32 = 5;

/// A file to download.
#[derive(Debug)]
pub(crate) struct Blob<'a> {
    hub: &'a Hub,
    asked: Asked<'a>,
    file: &'a str,
    commit: &'a str,
    etag: String,
    pub(crate) size: Option<u64>,
    path: PathBuf,
}

/// The beginning of a file, on its way.
struct Partial {
    path: PathBuf,
    file: File,
    length: u64,
    digest: Digest,
}

impl<'a> Blob<'a> {
    /// A file with its digest and its length.
    pub(crate) fn new(
        hub: &'a Hub,
        asked: Asked<'a>,
        commit: &'a str,
        etag: String,
        size: Option<u64>,
    ) -> Result<Self> {
        if !is_digest_like(&etag) {
            let reason = format!("it names no digest of {}", legible(asked.file.unwrap_or_default()));
            return Err(Error::NotTheHub { host: host(&hub.settings.endpoint).to_owned(), reason });
        }
        let path = hub.settings.cache.folder(asked.id).join("blobs").join(&etag);
        Ok(Self { hub, asked, file: asked.file.unwrap_or_default(), commit, etag, size, path })
    }

    /// Bytes that are still to come.
    pub(crate) fn missing(&self) -> u64 {
        let here = |path: &Path| fs::metadata(path).map_or(0, |found| found.len());
        let here = here(&self.path).max(here(&self.incomplete()));
        self.size.unwrap_or(0).saturating_sub(here)
    }

    /// Where its beginning lies.
    fn incomplete(&self) -> PathBuf {
        self.path.with_file_name(format!("{}.incomplete", self.etag))
    }

    /// Downloads it, and gives it its name in the snapshot.
    pub(crate) fn fetch(&self, stop: &AtomicBool, observer: Observer<'_>) -> Result<()> {
        let cache = &self.hub.settings.cache;
        let lock = self.lock(stop, observer)?;
        let whole =
            fs::metadata(&self.path).is_ok_and(|found| self.size.is_none_or(|size| size == found.len()));
        match whole {
            true => observer(Event::Here(self.size.unwrap_or(0))), // of another snapshot, or just now
            false => self.download(lock.holds(), stop, observer)?,
        }
        cache.place(&self.path, self.asked.id, self.commit, self.file)
    }

    fn lock(&self, stop: &AtomicBool, observer: Observer<'_>) -> Result<Lock> {
        let path = self.hub.settings.cache.locks(self.asked.id).join(format!("{}.lock", self.etag));
        let mut told = false;
        Lock::take(&path, || {
            if !told {
                observer(Event::Note(&format!("another process downloads {}: waits for it", self.file)));
            }
            told = true;
            stopped(stop)
        })
    }

    /// Downloads it. What does not have its digest is thrown away, and tried once more.
    fn download(&self, alone: bool, stop: &AtomicBool, observer: Observer<'_>) -> Result<()> {
        for last in [false, true] {
            let mut partial = self.open(alone)?;
            let path = partial.path.clone();
            observer(Event::Here(partial.length));
            let received = self.receive(&mut partial, stop, observer);
            let length = partial.length;
            let Err(error) = received.and_then(|()| self.finish(partial)) else { return Ok(()) };
            let Error::Damaged { what, .. } = &error else { return Err(error) };
            let _ = fs::remove_file(path);
            if last || matches!(*what, "etag" | "size") {
                return Err(error); // it would be the same again
            }
            observer(Event::Discarded(length));
            observer(Event::Note(&format!("{}: wrong {what}; downloads it again", self.file)));
        }
        unreachable!("the last try returns")
    }

    /// Opens its beginning, and reads what is there for the digest.
    fn open(&self, alone: bool) -> Result<Partial> {
        // Where nobody is held off, the beginning is nobody else's.
        let path = match alone {
            true => self.incomplete(),
            false => self.path.with_file_name(format!("{}.{}.incomplete", self.etag, process::id())),
        };
        let failed = |error| Error::cache(&path, error);
        let options = &mut File::options();
        let file =
            options.read(true).write(true).create(true).truncate(!alone).open(&path).map_err(failed)?;
        let mut partial = Partial { path: path.clone(), file, length: 0, digest: self.digest() };
        partial.read_beginning(self.size).map_err(failed)?;
        if self.size.is_none_or(|size| partial.length > size) {
            partial.clear(self.digest()).map_err(failed)?;
        }
        Ok(partial)
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.etag, self.size)
    }

    /// Reads until all is there. Whenever the connection breaks, it goes on from where it was.
    fn receive(&self, partial: &mut Partial, stop: &AtomicBool, observer: Observer<'_>) -> Result<()> {
        let mut breaks = 0;
        loop {
            if self.size == Some(partial.length) && partial.length > 0 || self.size == Some(0) {
                return Ok(());
            }
            let call = self.hub.file(self.asked, self.commit, Method::GET, partial.length);
            let answer = self.hub.call(self.asked, call, observer)?;
            let before = partial.length;
            self.begin(&answer, partial, observer)?;
            let place = host(&answer.address).to_owned();
            let reason = match self.read(answer, partial, stop, observer)? {
                None => return Ok(()),
                Some(reason) => reason,
            };
            breaks = if partial.length > before + CHUNK as u64 { 1 } else { breaks + 1 };
            let error = Error::Unreachable { host: place, reason, kept: true };
            if breaks == BREAKS {
                return Err(error);
            }
            self.hub.pause(breaks, None, &error, observer);
        }
    }

    /// Checks what an answer announces, and starts anew where the server does.
    fn begin(&self, answer: &Answer, partial: &mut Partial, observer: Observer<'_>) -> Result<()> {
        if let Some(etag) = answer.etag.as_ref().filter(|etag| **etag != self.etag) {
            return Err(self.damaged("etag", legible(etag), self.etag.clone()));
        }
        let (at, whole) = match answer.status {
            206 => answer.range().unwrap_or((0, None)),
            200 => (0, answer.length()),
            _ => (0, None), // 416: there is nothing from there on
        };
        if let (Some(whole), Some(size)) = (whole, self.size.filter(|size| whole != Some(*size))) {
            return Err(self.damaged("size", whole.to_string(), size.to_string()));
        }
        if answer.status == 206 && at != partial.length {
            let reason = format!("it sends {} from another place than was asked for", legible(self.file));
            return Err(Error::NotTheHub { host: host(&answer.address).to_owned(), reason });
        }
        if answer.status != 206 {
            observer(Event::Discarded(partial.length));
            partial.clear(self.digest()).map_err(|error| Error::cache(&partial.path, error))?;
        }
        Ok(())
    }

    /// Reads an answer's body. A break gives its reason; more bytes than announced are an error.
    fn read(
        &self,
        answer: Answer,
        partial: &mut Partial,
        stop: &AtomicBool,
        observer: Observer<'_>,
    ) -> Result<Option<String>> {
        if answer.status == 416 {
            return Ok(Some("it does not continue a file".to_owned()));
        }
        let limit = self.size.unwrap_or(MAX_UNKNOWN);
        let mut body = answer.body.into_reader();
        let mut chunk = vec![0; CHUNK];
        loop {
            stopped(stop)?;
            let read = match body.read(&mut chunk) {
                Ok(0) if self.size.is_none_or(|size| size == partial.length) => return Ok(None),
                Ok(0) => return Ok(Some("the connection ended early".to_owned())),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_timeout(&error) => return Ok(Some(self.hub.stalled())),
                Err(error) => return Ok(Some(offramp_files::one_line(&error.to_string()))),
            };
            if partial.length + read as u64 > limit {
                return Err(self.damaged("size", format!("more than {limit}"), limit.to_string()));
            }
            partial.append(&chunk[..read]).map_err(|error| Error::cache(&partial.path, error))?;
            observer(Event::Received(read as u64));
        }
    }

    /// Compares the digest, flushes, and renames.
    fn finish(&self, partial: Partial) -> Result<()> {
        let Partial { path, file, digest, length } = partial;
        let failed = |error| Error::cache(&path, error);
        let (what, found) = digest.finish();
        if let Some(found) = found.filter(|found| *found != self.etag) {
            return Err(self.damaged(what, found, self.etag.clone()));
        }
        debug_assert!(self.size.is_none_or(|size| size == length), "it is read to its end");
        file.sync_all().map_err(failed)?;
        fs::rename(&path, &self.path).map_err(failed)
    }

    fn damaged(&self, what: &'static str, found: String, expected: String) -> Error {
        Error::Damaged { id: self.asked.id.repository(), file: self.file.to_owned(), what, found, expected }
    }
}

impl Partial {
    /// Takes what an earlier download left into the digest, unless it is too long.
    fn read_beginning(&mut self, size: Option<u64>) -> io::Result<()> {
        if size.is_none_or(|size| self.file.metadata().is_ok_and(|found| found.len() > size)) {
            self.length = u64::MAX; // is cleared
            return Ok(());
        }
        let mut chunk = vec![0; CHUNK];
        loop {
            match self.file.read(&mut chunk)? {
                0 => return Ok(()),
                read => {
                    self.digest.update(&chunk[..read]);
                    self.length += read as u64;
                }
            }
        }
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.digest.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Starts anew.
    fn clear(&mut self, digest: Digest) -> io::Result<()> {
        (self.length, self.digest) = (0, digest);
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0)).map(|_| ())
    }
}

fn stopped(stop: &AtomicBool) -> Result<()> {
    if stop.load(Ordering::Relaxed) { Err(Error::Stopped) } else { Ok(()) }
}
