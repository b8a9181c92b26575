//! A model by its name on the hub: which of its files are needed, and where they lie afterwards.
//!
//! What is in the cache is used without a question to the hub. [`pull`] asks it.

mod choice;
mod gguf_files;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::run_folder::{CONFIG, TOKENIZER, WEIGHTS, WEIGHTS_INDEX};
use crate::weights::shard_names;
use choice::Choice;
use offramp_hub::{Event, Hub, Id, Listing, Observer, Revision, Settings, Wanted};
use std::path::{Path, PathBuf};

/// Files whose absence the cache notes, so that nobody asks again.
const OPTIONAL: [&str; 2] = [TOKENIZER, crate::run_folder::GENERATION];

/// A model that the hub was asked for.
#[derive(Clone, Debug)]
pub struct Pulled {
    /// Its folder or its (first) GGUF file.
    pub path: PathBuf,
    /// The commit.
    pub commit: String,
    /// The commit that its revision meant before, if that is another.
    pub before: Option<String>,
}

/// A model that a snapshot in the cache holds.
#[derive(Clone, Debug)]
pub struct Held {
    /// What follows the colon in its name; none if the snapshot is one model folder.
    pub file: Option<String>,
    /// Its folder or its (first) file.
    pub path: PathBuf,
    /// Bytes of its files.
    pub bytes: u64,
}

/// The models of a snapshot: the folder, and each GGUF file.
pub fn held(revision: &Revision) -> Vec<Held> {
    let names: Vec<String> = revision.files.iter().map(|file| file.path.clone()).collect();
    let bytes = |wanted: &dyn Fn(&str) -> bool| {
        revision.files.iter().filter(|file| wanted(&file.path)).map(|file| file.bytes).sum()
    };
    let mut held = Vec::new();
    if names.iter().any(|name| name == CONFIG) {
        let bytes = bytes(&|name| !is_gguf(name));
        held.push(Held { file: None, path: revision.folder.clone(), bytes });
    }
    for (label, parts) in gguf_files::labelled(&names) {
        let bytes = bytes(&|name| parts.iter().any(|part| part == name));
        held.push(Held { file: Some(label), path: revision.folder.join(&parts[0]), bytes });
    }
    held
}

/// Removes a model from the cache, one revision of it, or one GGUF file. Returns the bytes that became free;
/// none if it is not there.
///
/// # Errors
/// If it cannot be removed, or the file could be one of several.
pub fn remove(id: &Id) -> Result<Option<u64>> {
    let cache = Settings::from_environment()?.cache;
    let repository = cache.repository(id)?;
    let all = id.revision.is_none() && id.file.is_none();
    if all {
        let any = !repository.revisions.is_empty() || repository.unfinished > 0;
        return Ok(if any { Some(cache.remove(id, None)?) } else { None });
    }
    let commit = cache.commit(id);
    let revision = repository.revisions.iter().find(|revision| Some(&revision.commit) == commit.as_ref());
    let Some(revision) = revision else { return Ok(None) };
    let names: Vec<String> = revision.files.iter().map(|file| file.path.clone()).collect();
    let files = id.file.as_ref().map(|_| gguf_files::choose(id, &names)).transpose()?;
    Ok(Some(cache.remove(id, files.as_deref())?))
}

/// The model in whose snapshot in the cache a path lies.
pub fn of_path(path: &Path) -> Option<Id> {
    path.ancestors().find_map(of_snapshot)
}

/// The model whose snapshot in the cache a folder is, by its path.
pub fn of_snapshot(folder: &Path) -> Option<Id> {
    let snapshots = folder.parent().filter(|parent| parent.ends_with("snapshots"))?;
    Id::of_folder(snapshots.parent()?.file_name()?.to_str()?)
}

/// The model of a name: from the cache if all of it is there, else from the hub.
///
/// # Errors
/// If it is in neither, or cannot run here.
pub(crate) fn find(id: &Id, observer: Observer<'_>) -> Result<PathBuf> {
    let settings = Settings::from_environment()?;
    let cached = cached(&settings, id)?;
    match cached {
        Some(Cached { path, whole: true }) => Ok(path),
        Some(Cached { path, .. }) if settings.offline => Ok(path),
        // Its tokenizer may be missing, which not every command needs.
        Some(Cached { path, .. }) => Ok(pull_with(settings, id, observer).map_or(path, |pulled| pulled.path)),
        None => Ok(pull_with(settings, id, observer)?.path),
    }
}

/// Asks the hub for a model, and downloads what the cache does not have of it.
///
/// # Errors
/// If it cannot be had, or cannot run here.
pub fn pull(id: &Id, observer: Observer<'_>) -> Result<Pulled> {
    pull_with(Settings::from_environment()?, id, observer)
}

/// The model of a name in the cache, whole or not; none if its weights are not there.
struct Cached {
    path: PathBuf,
    whole: bool,
}

fn cached(settings: &Settings, id: &Id) -> Result<Option<Cached>> {
    let Some(folder) = settings.cache.snapshot(id) else { return Ok(None) };
    if id.file.is_none() && folder.join(CONFIG).is_file() {
        let whole = folder.join(TOKENIZER).is_file() || settings.cache.is_known_absent(id, TOKENIZER);
        return Ok(has_weights(&folder).then_some(Cached { path: folder, whole }));
    }
    let revisions = settings.cache.repository(id)?.revisions;
    let names = revisions.into_iter().filter(|revision| revision.folder == folder);
    let names: Vec<String> = names.flat_map(|revision| revision.files).map(|file| file.path).collect();
    let found = gguf_files::choose(id, &names).ok();
    Ok(found.map(|files| Cached { path: folder.join(&files[0]), whole: true }))
}

/// Whether a folder of the cache holds all weights.
fn has_weights(folder: &Path) -> bool {
    let all = || Some(shard_names(folder).ok()?.iter().all(|shard| folder.join(shard).is_file()));
    folder.join(WEIGHTS).is_file() || (folder.join(WEIGHTS_INDEX).is_file() && all() == Some(true))
}

fn pull_with(settings: Settings, id: &Id, observer: Observer<'_>) -> Result<Pulled> {
    if settings.offline {
        let cache = settings.cache.root().to_owned();
        return Err(offramp_hub::Error::Offline { id: id.to_string(), cache }.into());
    }
    let before = settings.cache.commit(id).filter(|_| settings.cache.snapshot(id).is_some());
    let hub = Hub::new(settings)?;
    let listing = hub.listing(id, observer)?;
    let commit = &listing.commit;
    let first = match choice::choose(id, &listing)? {
        Choice::Folder => fetch_folder(&hub, id, &listing, observer).map(|()| None)?,
        Choice::Gguf(files) => {
            let taken =
                id.file.is_none() && listing.files.iter().filter(|file| is_gguf(&file.path)).count() > 1;
            if taken {
                observer(Event::Note(&format!("{id}: takes {}; name another behind a colon", files[0].path)));
            }
            hub.fetch(Wanted { id, commit, files: &files }, observer)?;
            Some(files[0].path.clone())
        }
    };
    let absent: Vec<_> = OPTIONAL.into_iter().filter(|name| !listing.has(name)).collect();
    hub.finish(id, commit, &absent)?;
    let folder = hub.settings().cache.folder(id).join("snapshots").join(commit);
    let path = first.map_or(folder.clone(), |first| folder.join(first));
    Ok(Pulled { path, before: before.filter(|before| before != commit), commit: listing.commit })
}

fn is_gguf(name: &str) -> bool {
    name.to_lowercase().ends_with(".gguf")
}

/// Downloads a folder: first what says whether the model runs here, then all else.
fn fetch_folder(hub: &Hub, id: &Id, listing: &Listing, observer: Observer<'_>) -> Result<()> {
    let fetch = |names: &[&str]| {
        let files = listing.files.iter().filter(|file| names.contains(&&*file.path)).cloned();
        let files: Vec<_> = files.collect();
        hub.fetch(Wanted { id, commit: &listing.commit, files: &files }, observer).map_err(Error::from)
    };
    let index = if listing.has(WEIGHTS) { None } else { Some(WEIGHTS_INDEX) };
    let first: Vec<_> = [CONFIG].into_iter().chain(index).collect();
    let folder = fetch(&first)?;
    Config::read(&folder.join(CONFIG))?;
    let shards = match index {
        None => vec![WEIGHTS.to_owned()],
        Some(_) => shard_names(&folder)?,
    };
    if let Some(shard) = shards.iter().find(|shard| !listing.has(shard)) {
        let (id, file) = (id.repository(), shard.clone());
        return Err(offramp_hub::Error::NoFile { id, file, known: Vec::new() }.into());
    }
    let names: Vec<&str> = choice::small_files(listing).chain(shards.iter().map(String::as_str)).collect();
    fetch(&names)?;
    Ok(())
}
