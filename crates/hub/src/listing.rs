//! What the hub says about a model: its commit and its files.

use crate::address::{escaped, host, is_digest_like, is_inner};
use crate::client::{Answer, Hub};
use crate::error::{Error, Result};
use crate::fetch::Observer;
use crate::id::Id;
use serde::Deserialize;
use std::io::Read;

/// The longest answer of the hub's interface that is read: room for tens of thousands of files.
const MAX_ANSWER: u64 = 32 << 20;
/// At most this many names that could be meant.
const MAX_ALIKE: usize = 3;
/// So many of an owner's models are looked at.
const MAX_OWNERS: usize = 100;

/// A model's files at a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listing {
    /// The commit.
    pub commit: String,
    /// All its files, in the hub's order.
    pub files: Vec<RemoteFile>,
}

/// A file on the hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteFile {
    /// Where it lies in the model's folder. It stays within.
    pub path: String,
    /// Its length in bytes, if the hub says it.
    pub size: Option<u64>,
    /// Its digest, the name of its blob, if the hub says it.
    pub etag: Option<String>,
}

#[derive(Deserialize)]
struct Model {
    sha: Option<String>,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    blob_id: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    sha256: Option<String>,
    size: Option<u64>,
}

#[derive(Deserialize)]
struct Named {
    #[serde(alias = "name", alias = "modelId")]
    id: String,
}

#[derive(Default, Deserialize)]
struct Refs {
    #[serde(default)]
    branches: Vec<Ref>,
    #[serde(default)]
    tags: Vec<Ref>,
}

#[derive(Deserialize)]
struct Ref {
    name: String,
}

impl Listing {
    /// Whether there is such a file.
    pub fn has(&self, path: &str) -> bool {
        self.files.iter().any(|file| file.path == path)
    }
}

impl Hub {
    /// The files of a model at its revision.
    ///
    /// # Errors
    /// If the hub cannot be reached, has no such model or revision, does not let this user see it, or names
    /// files that could not be files of a model.
    pub fn listing(&self, id: &Id, observer: Observer<'_>) -> Result<Listing> {
        let (repository, revision) = (id.repository(), escaped(id.revision()));
        let path = format!("api/models/{repository}/revision/{revision}?blobs=true");
        let answer = self.ask(id, &path, observer).map_err(|error| self.explained(id, error))?;
        let (place, model): (_, Model) = parsed(answer)?;
        let commit = model.sha.filter(|commit| is_digest_like(commit));
        let no_commit = || Error::NotTheHub { host: place.clone(), reason: "it names no commit".to_owned() };
        let commit = commit.ok_or_else(no_commit)?;
        let files = model.siblings.into_iter().map(|sibling| sibling.checked(&repository));
        Ok(Listing { commit, files: files.collect::<Result<_>>()? })
    }

    /// Adds what the hub has that could have been meant.
    fn explained(&self, id: &Id, error: Error) -> Error {
        match error {
            Error::NoRepository { id: asked, host, token, .. } => {
                Error::NoRepository { id: asked, host, alike: self.alike(id), token }
            }
            Error::NoRevision { id: asked, revision, .. } => {
                Error::NoRevision { id: asked, revision, known: self.revisions(id) }
            }
            Error::Unreachable { host, reason, .. } => {
                Error::NobodyToAsk { id: id.to_string(), host, reason }
            }
            other => other,
        }
    }

    /// Models whose names are like the one that is not there: its owner's, and anybody's that the hub finds.
    fn alike(&self, id: &Id) -> Vec<String> {
        let owners =
            format!("api/models?author={}&sort=downloads&limit={MAX_OWNERS}", escaped(&id.organization));
        let anybodys = format!("api/models?search={}&sort=downloads&limit={MAX_ALIKE}", escaped(&id.name));
        let wanted = id.repository().to_lowercase();
        let mut alike = Vec::new();
        for path in [owners, anybodys] {
            let found = self.ask(id, &path, &|_| ()).and_then(parsed::<Vec<Named>>);
            for Named { id: found } in found.map(|(_, found)| found).unwrap_or_default() {
                let Some(named) = Id::parse(&found) else { continue };
                let name = edits(&named.name.to_lowercase(), &id.name.to_lowercase());
                if name <= id.name.len() / 2 {
                    alike.push((edits(&found.to_lowercase(), &wanted), found));
                }
            }
        }
        alike.sort();
        alike.dedup();
        alike.into_iter().take(MAX_ALIKE).map(|(_, name)| name).collect()
    }

    fn revisions(&self, id: &Id) -> Vec<String> {
        let path = format!("api/models/{}/refs", id.repository());
        let found = self.ask(id, &path, &|_| ()).and_then(parsed::<Refs>);
        let refs = found.map(|(_, refs)| refs).unwrap_or_default();
        let names = refs.branches.into_iter().chain(refs.tags).map(|found| found.name);
        names.filter(|name| is_inner(name)).collect()
    }
}

/// The edits between two names: letters put in, left out or replaced (Levenshtein 1966).
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (at, left) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], at + 1);
        for (column, right) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[b.len()]
}

impl Sibling {
    fn checked(self, repository: &str) -> Result<RemoteFile> {
        if !is_inner(&self.rfilename) {
            return Err(Error::Path { id: repository.to_owned(), path: self.rfilename });
        }
        let (sha256, size) = self.lfs.map_or((None, None), |lfs| (lfs.sha256, lfs.size));
        Ok(RemoteFile {
            path: self.rfilename,
            size: size.or(self.size),
            etag: sha256.or(self.blob_id).filter(|etag| is_digest_like(etag)),
        })
    }
}

/// The host of an answer, and its JSON.
fn parsed<T: for<'a> Deserialize<'a>>(answer: Answer) -> Result<(String, T)> {
    let place = host(&answer.address).to_owned();
    let mut text = Vec::new();
    let fault = |reason: String| Error::NotTheHub { host: place.clone(), reason };
    let read = answer.body.into_reader().take(MAX_ANSWER + 1).read_to_end(&mut text);
    read.map_err(|error| fault(error.to_string()))?;
    if text.len() as u64 > MAX_ANSWER {
        return Err(fault("its answer has no end".to_owned()));
    }
    let value = serde_json::from_slice(&text);
    let value = value.map_err(|error| fault(offramp_files::one_line(&error.to_string())))?;
    Ok((place, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_are_counted() {
        for (a, b, count) in
            [("", "abc", 3), ("kitten", "sitting", 3), ("llama", "llama", 0), ("ab", "ba", 2)]
        {
            assert_eq!((edits(a, b), edits(b, a)), (count, count), "{a} {b}");
        }
    }
}
