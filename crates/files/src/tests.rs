//! What is on the disk after every way in which writing can end.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::*;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The folders that `work` flushes to the disk.
fn synced(work: impl FnOnce()) -> Vec<PathBuf> {
    SYNCED.take();
    work();
    SYNCED.take()
}

#[test]
fn an_abandoned_file_leaves_no_trace_and_a_finished_one_replaces() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a.json");
    write_whole(&target, b"one").unwrap();
    Unfinished::create(&target).unwrap().write_all(b"half").unwrap();
    let mut unpublished = Unfinished::create(&target).unwrap();
    unpublished.write_all(b"whole, without a name").unwrap();
    drop(unpublished.finish().unwrap());
    assert_eq!(fs::read(&target).unwrap(), b"one");
    write_whole(&target, b"two").unwrap();
    assert_eq!(fs::read(&target).unwrap(), b"two");
    assert_eq!(names(folder.path()), ["a.json"]);
}

/// Without the flush, a power failure may remove the file's name.
#[test]
fn every_new_name_is_handed_to_the_disk() {
    let place = tempfile::tempdir().unwrap();
    let (here, target) = (place.path(), place.path().join("model"));
    assert_eq!(synced(|| write_whole(&here.join("a"), b"1").unwrap()), [here]);
    for _ in 0..2 {
        let handed =
            synced(|| replace_folder(&target, |e| e, |new| write_whole(&new.join("b"), b"2")).unwrap());
        assert_eq!(handed.last().unwrap(), here, "the folder's own name, after those within it");
        assert!(handed.len() == 3 && handed[0] == handed[1] && handed[0].parent() == Some(here));
    }
    assert_eq!(synced(|| remove_folder(&target).unwrap()), [here]);
    assert_eq!(parent(Path::new("bare")), Path::new("."));
    assert_eq!(names(here), ["a"]);
}

#[test]
fn a_folder_that_fails_leaves_the_one_before() {
    let place = tempfile::tempdir().unwrap();
    let target = place.path().join("model");
    replace_folder(&target, |e| e, |new| write_whole(&new.join("old"), b"1")).unwrap();
    let fails = |new: &Path| write_whole(&new.join("new"), b"2").and(Err(io::Error::other("no")));
    assert_eq!(replace_folder(&target, |e| e, fails).unwrap_err().to_string(), "no");
    assert_eq!((names(place.path()), names(&target)), (vec!["model".into()], vec!["old".into()]));
}

#[test]
fn leftovers_of_a_killed_run_are_removed_and_nothing_else() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    fs::write(folder.join(".offramp-x1.partial"), b"half").unwrap();
    fs::create_dir(folder.join(".offramp-step-000002-77.partial")).unwrap();
    fs::write(folder.join("mine.partial"), b"keep").unwrap();
    // Set aside, and never replaced.
    fs::create_dir(folder.join(".offramp-model-77.replaced")).unwrap();
    remove_leftovers(folder);
    assert_eq!(names(folder), ["mine.partial", "model"]);
}

#[test]
fn what_cannot_be_written_is_the_systems_error() {
    let folder = tempfile::tempdir().unwrap();
    let error = write_whole(&folder.path().join("absent").join("a.json"), b"x").unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(!error.to_string().contains(PREFIX), "{error}");
}

#[cfg(unix)]
#[test]
fn the_disk_is_asked_for_its_room() {
    let folder = tempfile::tempdir().unwrap();
    assert!(free_space(folder.path()).unwrap() > 0, "the other tests write there");
    assert_eq!(free_space(&folder.path().join("absent")), None);
}

/// Of several processes, the first that gives up removes what all have begun; after a good end the maker
/// does.
#[test]
fn a_shared_folder_goes_with_the_first_that_drops_it() {
    let place = tempfile::tempdir().unwrap();
    let folder = place.path();
    assert_eq!(SharedFolder::join(folder).unwrap_err().kind(), io::ErrorKind::NotFound);
    let (maker, other) = (SharedFolder::create(folder).unwrap(), SharedFolder::join(folder).unwrap());
    other.create_file("part").unwrap().write_all(b"half").unwrap();
    assert!(other.create_file("part").is_err(), "no process writes over another's");
    let unfinished = Unfinished::create_in(maker.path(), &folder.join("whole")).unwrap();
    assert_eq!(names(maker.path()).len(), 2);
    unfinished.publish().unwrap();
    other.leave();
    assert_eq!(names(maker.path()), ["part"]);
    drop(maker);
    assert_eq!(names(folder), ["whole"]);
    let (maker, other) = (SharedFolder::create(folder).unwrap(), SharedFolder::join(folder).unwrap());
    maker.create_file("part").unwrap();
    assert!(other.give_up());
    assert!(maker.create_file("late").is_err());
    assert!(!maker.give_up(), "the other was first");
    assert_eq!(names(folder), ["whole"]);
    // What a killed run leaves is empty again.
    std::mem::forget(SharedFolder::create(folder).unwrap().create_file("left").unwrap());
    let maker = SharedFolder::create(folder).unwrap();
    assert_eq!(names(maker.path()), [""; 0]);
}
