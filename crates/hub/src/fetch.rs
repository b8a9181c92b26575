//! Several files of a model at once.

use crate::blob::Blob;
use crate::client::{Asked, Hub};
use crate::error::{Error, Result};
use crate::id::Id;
use crate::listing::RemoteFile;
use offramp_files::free_space;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use ureq::http::Method;

/// Files that are downloaded at once, as `huggingface_hub` does.
const AT_ONCE: usize = 8;

/// What happens during a download.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Files of so many bytes in all are about to come.
    Begins {
        /// How many files.
        files: usize,
        /// Their bytes.
        bytes: u64,
    },
    /// So many bytes of them are there already.
    Here(u64),
    /// So many bytes came.
    Received(u64),
    /// So many bytes that came, or were there, were thrown away.
    Discarded(u64),
    /// A line for people: what is waited for, and why.
    Note(&'a str),
}

/// Who hears of it, on any thread.
pub type Observer<'a> = &'a (dyn Fn(Event<'_>) + Sync);

/// Files of a model at a commit.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The model.
    pub id: &'a Id,
    /// The commit.
    pub commit: &'a str,
    /// The files.
    pub files: &'a [RemoteFile],
}

impl Hub {
    /// Downloads files into the cache, all that are not there, and returns the folder that holds them. Its
    /// revision still means what it meant before: see [`Hub::finish`].
    ///
    /// # Errors
    /// If one cannot be had. What has come is kept, and the next call goes on from there.
    pub fn fetch(&self, wanted: Wanted<'_>, observer: Observer<'_>) -> Result<PathBuf> {
        let Wanted { id, commit, files } = wanted;
        let cache = &self.settings.cache;
        let folder = cache.snapshot_of(id, commit);
        let missing: Vec<_> = files.iter().filter(|file| !self.is_there(&folder, file)).collect();
        if missing.is_empty() {
            return Ok(folder);
        }
        if self.settings.offline {
            return Err(Error::Offline { id: id.to_string(), cache: cache.root().to_owned() });
        }
        cache.prepare(id)?;
        let blobs = missing.into_iter().map(|file| self.described(id, commit, file, observer));
        let mut blobs: Vec<Blob<'_>> = blobs.collect::<Result<_>>()?;
        let bytes = blobs.iter().filter_map(|blob| blob.size).fold(0, u64::saturating_add);
        observer(Event::Begins { files: blobs.len(), bytes });
        self.check_space(id, &blobs)?;
        blobs.sort_by_key(|blob| blob.size); // the largest are taken first, from the end
        self.fetch_all(blobs, observer)?;
        Ok(folder)
    }

    /// Ends a download: the revision means this commit from now on, and `absent` files are known to be
    /// absent.
    ///
    /// # Errors
    /// If the cache cannot be written.
    pub fn finish(&self, id: &Id, commit: &str, absent: &[&str]) -> Result<()> {
        let cache = &self.settings.cache;
        absent.iter().try_for_each(|file| cache.note_absent(id, commit, file))?;
        cache.note_commit(id, commit)
    }

    /// Whether a file lies in a snapshot, as long as it should be.
    fn is_there(&self, folder: &std::path::Path, file: &RemoteFile) -> bool {
        let found = fs::metadata(folder.join(&file.path));
        found.is_ok_and(|found| found.is_file() && file.size.is_none_or(|size| size == found.len()))
    }

    /// A file with its digest. Some mirrors do not list digests, and are asked for each.
    fn described<'a>(
        &'a self,
        id: &'a Id,
        commit: &'a str,
        file: &'a RemoteFile,
        observer: Observer<'_>,
    ) -> Result<Blob<'a>> {
        let asked = Asked { id, file: Some(&file.path) };
        let (etag, size) = match (&file.etag, file.size) {
            (Some(etag), Some(size)) => (etag.clone(), Some(size)),
            _ => {
                let call = self.file(asked, commit, Method::HEAD, 0);
                let answer = self.call(asked, call, observer)?;
                let size = answer.size.or_else(|| answer.length());
                (answer.etag.unwrap_or_default(), size)
            }
        };
        Blob::new(self, asked, commit, etag, size)
    }

    /// Refuses before anything is written what the disk cannot hold.
    fn check_space(&self, id: &Id, blobs: &[Blob<'_>]) -> Result<()> {
        let root = self.settings.cache.root();
        let needed = blobs.iter().map(Blob::missing).fold(0, u64::saturating_add);
        match free_space(root) {
            Some(free) if free < needed => {
                Err(Error::Disk { id: id.repository(), path: root.to_owned(), needed, free })
            }
            _ => Ok(()),
        }
    }

    /// Downloads on several threads. After a failure all stop, and what has come stays.
    fn fetch_all(&self, blobs: Vec<Blob<'_>>, observer: Observer<'_>) -> Result<()> {
        let threads = blobs.len().min(AT_ONCE);
        let (left, stop) = (Mutex::new(blobs), AtomicBool::new(false));
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let work = || -> Result<()> {
            while let Some(blob) = next() {
                if let Err(error) = blob.fetch(&stop, observer) {
                    stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
            Ok(())
        };
        let results: Vec<Result<()>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            let results = threads.into_iter().map(|thread| thread.join());
            results.map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
        });
        let mut errors = results.into_iter().filter_map(Result::err);
        let first = errors.next();
        match first {
            None => Ok(()),
            // The cause, not one that stopped because of it.
            Some(Error::Stopped) => {
                Err(errors.find(|error| !matches!(error, Error::Stopped)).unwrap_or(Error::Stopped))
            }
            Some(error) => Err(error),
        }
    }
}
