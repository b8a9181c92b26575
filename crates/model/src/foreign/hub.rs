//! Names on Hugging Face's hub, and the cache of its tools. Nothing is downloaded here.

use crate::error::Error;
use crate::quoted::quoted;
use crate::run_folder::is_model;
use offramp_files::legible;
use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// How addresses of the hub begin.
const ADDRESSES: [&str; 4] =
    ["https://huggingface.co/", "http://huggingface.co/", "huggingface.co/", "hf://"];
/// How a model's folder in the cache begins: `models--ORG--NAME`.
const MODELS: &str = "models--";

/// The folder of a model that the hub's tools have downloaded, by its name on the hub. A path that exists is
/// no such name.
pub(crate) fn cached(path: &Path) -> Option<PathBuf> {
    let (organisation, name) = path.to_str().filter(|_| !path.exists()).and_then(id)?;
    let roots = caches().into_iter().map(|cache| cache.join(format!("{MODELS}{organisation}--{name}")));
    roots.filter_map(|root| snapshot(&root)).next()
}

/// The error for a path that does not exist, which may be a name on the hub.
pub(super) fn absent(path: &Path) -> Error {
    let Some((organisation, name)) = path.to_str().and_then(id) else {
        return Error::NoModel { path: path.to_owned(), reason: "there is nothing there".to_owned() };
    };
    let found = "there is no such folder, it is not in the hub's cache, and nothing is downloaded".to_owned();
    let advice = format!("get it with `hf download {organisation}/{name}`");
    Error::Foreign { path: path.to_owned(), found, advice }
}

/// Organization and name, if a path looks like a model's name or address on the hub and like no local path.
fn id(path: &str) -> Option<(&str, &str)> {
    let address = ADDRESSES.iter().find_map(|address| path.strip_prefix(address));
    let (organisation, name) = address.unwrap_or(path).trim_end_matches('/').split_once('/')?;
    let plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        part.bytes().all(allowed) && part.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
    };
    // In a folder that exists, the name is misspelt.
    let elsewhere = address.is_some() || !Path::new(organisation).exists();
    (plain(organisation) && plain(name) && elsewhere).then_some((organisation, name))
}

/// The places of the hub's cache, the most specific setting first.
fn caches() -> Vec<PathBuf> {
    let of = |name: &str| env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    let places = [
        of("HF_HUB_CACHE"),
        of("HUGGINGFACE_HUB_CACHE"),
        of("HF_HOME").map(|home| home.join("hub")),
        of("XDG_CACHE_HOME").map(|home| home.join("huggingface/hub")),
        of("HOME").map(|home| home.join(".cache/huggingface/hub")),
    ];
    places.into_iter().flatten().collect()
}

/// The model folder of a `models--ORG--NAME`: the one that its `main` names, or else the newest.
pub(crate) fn snapshot(root: &Path) -> Option<PathBuf> {
    let snapshots = root.join("snapshots");
    let commit = fs::read_to_string(root.join("refs/main")).unwrap_or_default();
    let mut parts = Path::new(commit.trim()).components();
    if let (Some(Component::Normal(commit)), None) = (parts.next(), parts.next())
        && is_model(&snapshots.join(commit))
    {
        return Some(snapshots.join(commit));
    }
    let all = fs::read_dir(&snapshots).ok()?.flatten().map(|entry| entry.path());
    let written = |path: &PathBuf| fs::metadata(path).and_then(|found| found.modified()).ok();
    all.filter(|path| is_model(path)).max_by_key(|path| (written(path), path.clone()))
}

/// The error for a `models--ORG--NAME` without a model; none if the folder is no such one.
pub(crate) fn without_snapshot(root: &Path) -> Option<Error> {
    let name = root.file_name()?.to_str()?.strip_prefix(MODELS)?;
    let id = legible(&name.replacen("--", "/", 1));
    let advice = format!("download it again with `hf download {}`", quoted(&id));
    let found = "none of the snapshots in this folder of the hub's cache holds a config.json".to_owned();
    Some(Error::Foreign { path: root.to_owned(), found, advice })
}
