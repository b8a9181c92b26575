//! The cache: laid out as Python's, shared, and emptied again.

use crate::mock::{COMMIT, Model, Reply};
use crate::place::*;
use offramp_hub::{Cache, Hub, Id, Settings};
use std::fs;
use std::path::Path;
use std::time::Duration;

#[test]
fn the_cache_is_laid_out_as_pythons_and_nothing_comes_twice() {
    let place = Place::new(model());
    let hub = place.client();
    let folder = pull(&hub, &place.id, &quiet).unwrap();
    assert_eq!(folder, place.snapshot());
    for (path, file) in &model().files {
        let link = fs::read_link(folder.join(path)).unwrap();
        let up = if path.contains('/') { "../../../blobs" } else { "../../blobs" };
        assert_eq!(link, Path::new(up).join(&file.etag), "a relative link");
        assert_eq!(fs::read(folder.join(path)).unwrap(), file.bytes);
    }
    let root = place.cache().join("models--org--name");
    assert_eq!(fs::read_to_string(root.join("refs/main")).unwrap(), COMMIT);
    assert!(root.join(".no_exist").join(COMMIT).join("tokenizer.json").is_file());
    assert!(place.cache().join(".locks/models--org--name").is_dir());
    assert!(!place.files().iter().any(|name| name.ends_with(".incomplete")));

    place.hub.requests();
    pull(&hub, &place.id, &quiet).unwrap();
    assert_eq!(place.hub.requests().len(), 1, "the listing alone");
    assert_eq!(hub.settings().cache.snapshot(&place.id), Some(folder));
    let tag = Id::parse("org/name@v1").unwrap();
    pull(&hub, &tag, &quiet).unwrap();
    assert_eq!(fs::read_to_string(root.join("refs/v1")).unwrap(), COMMIT);
}

#[test]
fn without_links_a_snapshot_holds_the_files_themselves() {
    let place = Place::new(model());
    let settings = Settings { cache: Cache::new(place.cache(), false), ..place.settings() };
    let folder = pull(&Hub::new(settings).unwrap(), &place.id, &quiet).unwrap();
    for (path, file) in &model().files {
        assert!(!fs::symlink_metadata(folder.join(path)).unwrap().is_symlink());
        assert_eq!(fs::read(folder.join(path)).unwrap(), file.bytes);
    }
    assert_eq!(fs::read_dir(place.cache().join("models--org--name/blobs")).unwrap().count(), 0);
}

#[test]
fn a_mirror_that_lists_neither_lengths_nor_digests_is_asked_for_each() {
    let place = Place::new(Model { bare: true, ..model() });
    pull(&place.client(), &place.id, &quiet).unwrap();
    let requests = place.hub.requests();
    assert_eq!(requests.iter().filter(|request| request.method == "HEAD").count(), 3);
    assert!(requests.iter().all(|request| request.method != "HEAD" || !request.elsewhere));
    assert_eq!(fs::read(place.snapshot().join("model.safetensors")).unwrap(), noise(900_000));
}

#[test]
fn two_downloads_of_one_model_share_its_bytes() {
    let place = Place::new(model());
    place.hub.twist(|request, reply| match request.elsewhere {
        true => Reply { stall: Some(Duration::from_millis(200)), ..reply },
        false => reply,
    });
    std::thread::scope(|scope| {
        let both = [0, 1].map(|_| scope.spawn(|| pull(&place.client(), &place.id, &quiet).unwrap()));
        for thread in both {
            thread.join().unwrap();
        }
    });
    assert_eq!(sent(&place), [0], "one waited for the other");
}

#[test]
fn what_is_removed_takes_its_blobs_along_and_no_others() {
    let place = Place::new(model());
    let hub = place.client();
    pull(&hub, &place.id, &quiet).unwrap();
    let next = "a".repeat(40);
    let mut second = model();
    second.commit = next.clone();
    second.files.insert("config.json".to_owned(), small("{}"));
    place.hub.add("org/name", second);
    pull(&hub, &place.id, &quiet).unwrap();
    let cache = &hub.settings().cache;
    let [repository] = &cache.repositories().unwrap()[..] else { panic!("one model") };
    assert_eq!((repository.id.to_string().as_str(), repository.revisions.len()), ("org/name", 2));
    assert_eq!(repository.bytes, 900_000 + 8 + 4 + 2, "what both share counts once");
    assert_eq!(repository.revisions[0].names, ["main"]);

    let old = Id::parse(&format!("org/name@{COMMIT}")).unwrap();
    assert_eq!(cache.remove(&old, None).unwrap(), 8, "the file that the other revision does not have");
    assert_eq!(
        fs::read(cache.snapshot(&place.id).unwrap().join("model.safetensors")).unwrap(),
        noise(900_000)
    );
    assert_eq!(cache.remove(&place.id, Some(&["sub/a file.txt".to_owned()])).unwrap(), 4);
    assert_eq!(cache.remove(&place.id, None).unwrap(), 900_002);
    assert!(cache.repositories().unwrap().is_empty());
    assert_eq!(place.files(), ["cache/CACHEDIR.TAG"]);
}
