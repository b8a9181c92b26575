//! Everything that can go wrong in this room, each in one line that says what to do about it.

use offramp_files::legible;
use std::io;
use std::path::{Path, PathBuf};

/// What the functions of this room return.
pub type Result<T> = std::result::Result<T, Error>;

/// A fault of the network, of the hub, of a name, or of the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `HF_ENDPOINT` is not an address.
    #[error("HF_ENDPOINT is {found:?}: it must begin with https:// or http://", found = legible(found))]
    Endpoint {
        /// Its value.
        found: String,
    },
    /// There is no folder for the cache.
    #[error("there is no place for what is downloaded: set HF_HOME to a folder")]
    NoCache,
    /// A file with certificates that cannot be used.
    #[error("{path}: {reason}: set SSL_CERT_FILE to a file of certificates in PEM, or unset it", path = path.display())]
    Certificates {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Something is to be downloaded, and nothing may be.
    #[error(
        "there is no folder {id}, no model of that name in the hub's cache ({cache}), and HF_HUB_OFFLINE is set: unset it, or run `offramp pull {id}` where there is a network",
        cache = cache.display()
    )]
    Offline {
        /// What was asked for.
        id: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub has no such model.
    #[error("there is no folder {id}, and no model of that name at {host}{advice}", advice = no_model(alike, *token))]
    NoRepository {
        /// What was asked for.
        id: String,
        /// The hub.
        host: String,
        /// Names of models that are there.
        alike: Vec<String>,
        /// Whether a token was sent.
        token: bool,
    },
    /// A model without such a branch, tag or commit.
    #[error("{id} has no revision {revision}{}", choices(": it has", known, ": leave it out for main"))]
    NoRevision {
        /// `ORG/NAME`
        id: String,
        /// What was asked for.
        revision: String,
        /// Its branches and tags.
        known: Vec<String>,
    },
    /// A model without such a file.
    #[error("{id} has no file or quantization {file}{}", choices(": it has", known, ", and no GGUF file"))]
    NoFile {
        /// `ORG/NAME`
        id: String,
        /// What was asked for.
        file: String,
        /// What could be meant.
        known: Vec<String>,
    },
    /// A model whose terms nobody has accepted yet.
    #[error("{id} is gated: {}", gated(page, settings, *token))]
    Gated {
        /// `ORG/NAME`
        id: String,
        /// Its page.
        page: String,
        /// The page on which tokens are made.
        settings: String,
        /// Whether a token was sent.
        token: bool,
    },
    /// A token that the hub does not know.
    #[error("{host} does not accept the token: make another at {settings} and set HF_TOKEN, or unset it")]
    Token {
        /// The hub.
        host: String,
        /// The page on which tokens are made.
        settings: String,
    },
    /// A host that could not be reached.
    #[error("cannot reach {host}: {reason}: check the network, HTTPS_PROXY and HF_ENDPOINT, then try again{}", what_is_kept(*kept))]
    Unreachable {
        /// The host.
        host: String,
        /// What happened last.
        reason: String,
        /// Whether the beginning of a file is kept.
        kept: bool,
    },
    /// A name that may be a misspelt folder, while the hub cannot be reached.
    #[error(
        "there is no folder {id}, and {host} cannot be asked for a model of that name: {reason}: check the name, or the network, HTTPS_PROXY and HF_ENDPOINT"
    )]
    NobodyToAsk {
        /// What was asked for.
        id: String,
        /// The hub.
        host: String,
        /// What happened.
        reason: String,
    },
    /// An answer that is an error.
    #[error("{host} answers {status}{}: try again later", said(message))]
    Status {
        /// The host.
        host: String,
        /// The status of HTTP.
        status: u16,
        /// What it says.
        message: String,
    },
    /// An answer that no hub gives.
    #[error("{host} does not answer as the hub does: {reason}: check HF_ENDPOINT and the proxy")]
    NotTheHub {
        /// The host.
        host: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A path that leads out of the model's folder.
    #[error("{id} names a file {path:?}, which cannot be a file of this model: nothing was written", path = legible(path))]
    Path {
        /// `ORG/NAME`
        id: String,
        /// The path.
        path: String,
    },
    /// A redirect that is not followed.
    #[error("{host} redirects to {place:?}, which is not followed: {reason}", place = legible(place))]
    Redirect {
        /// Who redirects.
        host: String,
        /// Where to.
        place: String,
        /// Why not.
        reason: &'static str,
    },
    /// A file that is not what its digest says.
    #[error("{file} of {id} is not what the hub says: its {what} is {found}, not {expected}: nothing was kept, try again, or check HF_ENDPOINT and the proxy", file = legible(file))]
    Damaged {
        /// `ORG/NAME`
        id: String,
        /// The file.
        file: String,
        /// What differs: size, etag, sha256 or sha1.
        what: &'static str,
        /// What came.
        found: String,
        /// What the hub announced.
        expected: String,
    },
    /// A disk with too little space.
    #[error("{path} has {free} of free space, and {id} needs {needed}: free some, or set HF_HUB_CACHE to a folder on another disk", path = path.display(), free = size(*free), needed = size(*needed))]
    Disk {
        /// `ORG/NAME`
        id: String,
        /// The cache.
        path: PathBuf,
        /// Bytes that are still to come.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// A file or folder of the cache that cannot be read or written.
    #[error("{path}: {source}: {advice}", path = path.display(), advice = advice(source))]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// Another download failed, so this one was given up.
    #[error("another file could not be downloaded")]
    Stopped,
}

impl Error {
    pub(crate) fn cache(path: &Path, source: io::Error) -> Self {
        Self::Cache { path: path.to_owned(), source }
    }

    /// Whether the name or the settings are at fault, and not the network or the disk.
    pub fn is_mistake(&self) -> bool {
        matches!(
            self,
            Self::Endpoint { .. }
                | Self::Certificates { .. }
                | Self::Offline { .. }
                | Self::NoRepository { .. }
                | Self::NoRevision { .. }
                | Self::NoFile { .. }
                | Self::Gated { .. }
                | Self::Token { .. }
        )
    }
}

/// A number of bytes as people read it; units are of 1000.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{} kB", bytes.div_ceil(1000)),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// At most this many names in a line.
const SHOWN: usize = 8;

fn choices(before: &str, known: &[String], otherwise: &str) -> String {
    if known.is_empty() {
        return otherwise.to_owned();
    }
    let shown: Vec<_> = known.iter().take(SHOWN).map(|name| legible(name)).collect();
    let more = if known.len() > SHOWN { ", …" } else { "" };
    format!("{before} {}{more}", shown.join(", "))
}

fn no_model(alike: &[String], token: bool) -> String {
    let private = if token { "" } else { " (a private one needs HF_TOKEN)" };
    match alike.is_empty() {
        true => format!("{private}: check its spelling"),
        false => format!("{private}: did you mean {}?", choices("", alike, "").trim_start()),
    }
}

fn gated(page: &str, settings: &str, token: bool) -> String {
    match token {
        true => format!("the token's account may not read it yet: accept its terms at {page}"),
        false => format!("accept its terms at {page}, then set HF_TOKEN to a token of {settings}"),
    }
}

fn what_is_kept(kept: bool) -> &'static str {
    if kept { "; what has come is kept" } else { "" }
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({})", legible(message)) }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "free some space, or set HF_HUB_CACHE to a folder on another disk, then try again"
        }
        _ => "check that the cache may be written, or set HF_HUB_CACHE to another folder",
    }
}
