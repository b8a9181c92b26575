//! A hub with a model, a cache, and what tests ask of both.

use crate::mock::{COMMIT, File, MockHub, Model};
use offramp_hub::{Cache, Event, Hub, Id, Listing, Observer, Settings, Wanted};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn large(bytes: impl Into<Vec<u8>>) -> File {
    let bytes = bytes.into();
    File { etag: hex(digest(&SHA256, &bytes).as_ref()), bytes, large: true }
}

pub(crate) fn small(text: &str) -> File {
    let blob = format!("blob {}\0{text}", text.len());
    let etag = hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, blob.as_bytes()).as_ref());
    File { etag, bytes: text.as_bytes().to_vec(), large: false }
}

/// Bytes without a pattern.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8).collect()
}

pub(crate) fn model() -> Model {
    Model::new([
        ("config.json", small("{\"a\": 1}")),
        ("sub/a file.txt", small("text")),
        ("model.safetensors", large(noise(900_000))),
    ])
}

pub(crate) struct Place {
    pub(crate) hub: MockHub,
    pub(crate) folder: TempDir,
    pub(crate) id: Id,
}

impl Place {
    pub(crate) fn new(model: Model) -> Self {
        let hub = MockHub::start();
        hub.add("org/name", model);
        Self { hub, folder: TempDir::new().unwrap(), id: Id::parse("org/name").unwrap() }
    }

    pub(crate) fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    pub(crate) fn settings(&self) -> Settings {
        Settings {
            endpoint: self.hub.endpoint(),
            token: None,
            offline: false,
            cache: Cache::new(self.cache(), true),
            timeout: Duration::from_millis(400),
            pause: Duration::from_millis(1),
            certificates: None,
        }
    }

    pub(crate) fn client(&self) -> Hub {
        Hub::new(self.settings()).unwrap()
    }

    pub(crate) fn snapshot(&self) -> PathBuf {
        self.cache().join("models--org--name/snapshots").join(COMMIT)
    }

    /// Every file under the place, without the folders of locks.
    pub(crate) fn files(&self) -> Vec<String> {
        fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
            for entry in fs::read_dir(folder).unwrap().flatten() {
                match entry.file_type().unwrap().is_dir() {
                    true => walk(&entry.path(), files),
                    false => files.push(entry.path()),
                }
            }
        }
        let mut files = Vec::new();
        walk(self.folder.path(), &mut files);
        let names =
            files.iter().map(|path| path.strip_prefix(self.folder.path()).unwrap().display().to_string());
        let mut names: Vec<_> = names.filter(|name| !name.contains(".lock")).collect();
        names.sort();
        names
    }
}

/// Everything of a model, in the way of `snapshot_download`.
pub(crate) fn pull(hub: &Hub, id: &Id, observer: Observer<'_>) -> offramp_hub::Result<PathBuf> {
    let Listing { commit, files } = hub.listing(id, observer)?;
    let folder = hub.fetch(Wanted { id, commit: &commit, files: &files }, observer)?;
    hub.finish(id, &commit, &["tokenizer.json"])?;
    Ok(folder)
}

pub(crate) fn quiet(_: Event<'_>) {}

/// The error's line. It is one line, and it shows no secret.
pub(crate) fn line(result: offramp_hub::Result<PathBuf>) -> String {
    let line = result.unwrap_err().to_string();
    assert!(!line.contains('\n') && !line.contains("secret"), "{line}");
    line
}

/// The bytes that the answers of the second host held, in order.
pub(crate) fn sent(place: &Place) -> Vec<u64> {
    let requests = place.hub.requests();
    let away = requests.iter().filter(|request| request.elsewhere);
    let from = |range: &String| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    away.map(|request| request.headers.get("range").map_or(0, from)).collect()
}
