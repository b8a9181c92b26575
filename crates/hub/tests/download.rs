//! What a download promises, against a hub that does everything wrong.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

mod mock;

use mock::{COMMIT, File, MockHub, Model, Reply};
use offramp_hub::{Cache, Event, Hub, Id, Listing, Observer, Settings, Token, Wanted};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn large(bytes: impl Into<Vec<u8>>) -> File {
    let bytes = bytes.into();
    File { etag: hex(digest(&SHA256, &bytes).as_ref()), bytes, large: true }
}

fn small(text: &str) -> File {
    let blob = format!("blob {}\0{text}", text.len());
    let etag = hex(digest(&SHA1_FOR_LEGACY_USE_ONLY, blob.as_bytes()).as_ref());
    File { etag, bytes: text.as_bytes().to_vec(), large: false }
}

/// Bytes without a pattern.
fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) as u8).collect()
}

fn model() -> Model {
    Model::new([
        ("config.json", small("{\"a\": 1}")),
        ("sub/a file.txt", small("text")),
        ("model.safetensors", large(noise(900_000))),
    ])
}

struct Place {
    hub: MockHub,
    folder: TempDir,
    id: Id,
}

impl Place {
    fn new(model: Model) -> Self {
        let hub = MockHub::start();
        hub.add("org/name", model);
        Self { hub, folder: TempDir::new().unwrap(), id: Id::parse("org/name").unwrap() }
    }

    fn cache(&self) -> PathBuf {
        self.folder.path().join("cache")
    }

    fn settings(&self) -> Settings {
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

    fn client(&self) -> Hub {
        Hub::new(self.settings()).unwrap()
    }

    fn snapshot(&self) -> PathBuf {
        self.cache().join("models--org--name/snapshots").join(COMMIT)
    }

    /// Every file under the place, without the folders of locks.
    fn files(&self) -> Vec<String> {
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
fn pull(hub: &Hub, id: &Id, observer: Observer<'_>) -> offramp_hub::Result<PathBuf> {
    let Listing { commit, files } = hub.listing(id, observer)?;
    let folder = hub.fetch(Wanted { id, commit: &commit, files: &files }, observer)?;
    hub.finish(id, &commit, &["tokenizer.json"])?;
    Ok(folder)
}

fn quiet(_: Event<'_>) {}

/// The error's line. It is one line, and it shows no secret.
fn line(result: offramp_hub::Result<PathBuf>) -> String {
    let line = result.unwrap_err().to_string();
    assert!(!line.contains('\n') && !line.contains("secret"), "{line}");
    line
}

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
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let place = Place::new(model());
    let settings = Settings { token: Token::new("hf_secret"), ..place.settings() };
    pull(&Hub::new(settings).unwrap(), &place.id, &quiet).unwrap();
    for request in place.hub.requests() {
        let sent = request.headers.get("authorization").map(String::as_str);
        assert_eq!(sent, (!request.elsewhere).then_some("Bearer hf_secret"), "{request:?}");
    }
}

/// The bytes that the answers of the second host held, in order.
fn sent(place: &Place) -> Vec<u64> {
    let requests = place.hub.requests();
    let away = requests.iter().filter(|request| request.elsewhere);
    let from = |range: &String| range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap();
    away.map(|request| request.headers.get("range").map_or(0, from)).collect()
}

#[test]
fn a_download_that_breaks_off_goes_on_from_there() {
    let place = Place::new(model());
    place.hub.twist(|request, reply| match request.elsewhere {
        true => Reply { cut: Some(400_000), ..reply },
        false => reply,
    });
    let (received, notes) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let observer = |event: Event<'_>| match event {
        Event::Received(bytes) => _ = received.fetch_add(bytes, Ordering::Relaxed),
        Event::Discarded(bytes) => _ = received.fetch_sub(bytes, Ordering::Relaxed),
        Event::Note(line) => notes.lock().unwrap().push(line.to_owned()),
        Event::Begins { .. } | Event::Here(_) => {}
    };
    pull(&place.client(), &place.id, &observer).unwrap();
    assert_eq!(sent(&place), [0, 400_000, 800_000]);
    let total: usize = model().files.values().map(|file| file.bytes.len()).sum();
    assert_eq!(received.load(Ordering::Relaxed), total as u64, "bytes are counted once");
    assert_eq!(notes.lock().unwrap().len(), 2, "each break is told: {notes:?}");
}

#[test]
fn a_download_of_another_process_goes_on_too() {
    let place = Place::new(model());
    place.hub.twist(|request, reply| match request.elsewhere {
        true if request.headers.contains_key("range") => Reply::new(500, ""),
        true => Reply { cut: Some(300_000), ..reply },
        false => reply,
    });
    let line = line(pull(&place.client(), &place.id, &quiet));
    assert!(line.contains("500"), "{line}");
    let kept = place.files().into_iter().find(|name| name.ends_with(".incomplete")).unwrap();
    assert_eq!(fs::metadata(place.folder.path().join(kept)).unwrap().len(), 300_000);
    assert_eq!(place.client().settings().cache.snapshot(&place.id), None, "main means what it meant");
    sent(&place);
    place.hub.behave();
    pull(&place.client(), &place.id, &quiet).unwrap();
    assert_eq!(sent(&place), [300_000]);
    assert_eq!(fs::read(place.snapshot().join("model.safetensors")).unwrap(), noise(900_000));
}

#[test]
fn a_server_that_knows_no_ranges_sends_all_again() {
    let place = Place::new(model());
    let mut first = true;
    place.hub.twist(move |request, reply| match request.elsewhere {
        true if std::mem::take(&mut first) => Reply { cut: Some(300_000), ..reply },
        true => Reply::new(200, noise(900_000)),
        false => reply,
    });
    pull(&place.client(), &place.id, &quiet).unwrap();
    assert_eq!(fs::read(place.snapshot().join("model.safetensors")).unwrap(), noise(900_000));
}

#[test]
fn what_an_earlier_download_left_is_not_trusted() {
    for left in [vec![7; 1000], noise(900_001), vec![7; 900_000]] {
        let place = Place::new(model());
        let blobs = place.cache().join("models--org--name/blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(format!("{}.incomplete", large(noise(900_000)).etag)), left).unwrap();
        pull(&place.client(), &place.id, &quiet).unwrap();
        assert_eq!(fs::read(place.snapshot().join("model.safetensors")).unwrap(), noise(900_000));
    }
}

#[test]
fn a_silent_connection_is_given_up_and_tried_again() {
    let place = Place::new(model());
    let mut first = true;
    place.hub.twist(move |request, reply| match request.elsewhere && std::mem::take(&mut first) {
        true => Reply { stall: Some(Duration::from_secs(20)), ..reply },
        false => reply,
    });
    let notes = Mutex::new(Vec::new());
    let observer = |event: Event<'_>| {
        if let Event::Note(line) = event {
            notes.lock().unwrap().push(line.to_owned());
        }
    };
    pull(&place.client(), &place.id, &observer).unwrap();
    let notes = notes.into_inner().unwrap();
    assert!(notes.len() == 1 && notes[0].contains("nothing came for"), "{notes:?}");
}

#[test]
fn what_is_damaged_is_tried_once_more_and_never_kept() {
    for (what, body) in [("sha256", vec![0; 900_000]), ("size", noise(900_001)), ("size", noise(800_000))] {
        let place = Place::new(model());
        let body_sent = body.clone();
        place.hub.twist(move |request, reply| match request.elsewhere {
            true => Reply::new(200, body_sent.clone()),
            false => reply,
        });
        let line = line(pull(&place.client(), &place.id, &quiet));
        assert!(line.contains("model.safetensors of org/name") && line.contains(what), "{line}");
        let left = place.files().into_iter().find(|name| name.contains(&large(noise(900_000)).etag));
        assert_eq!(left, None);
        assert!(!place.snapshot().join("model.safetensors").exists());
        place.hub.behave();
        pull(&place.client(), &place.id, &quiet).unwrap();
    }
}

#[test]
fn a_body_without_an_end_is_cut_off() {
    let place = Place::new(model());
    place.hub.twist(|request, reply| match request.elsewhere {
        true => {
            let body: Vec<u8> = (0..64)
                .flat_map(|_| [b"40000\r\n".to_vec(), vec![7; 0x40000], b"\r\n".to_vec()].concat())
                .collect();
            Reply::new(200, body).with("transfer-encoding", "chunked").with("content-length", "")
        }
        false => reply,
    });
    let line = line(pull(&place.client(), &place.id, &quiet));
    assert!(line.contains("org/name") || line.contains("127.0.0.1"), "{line}");
    let left: u64 = fs::read_dir(place.cache().join("models--org--name/blobs"))
        .unwrap()
        .flatten()
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(left <= 900_100, "{left}");
}

#[test]
fn another_digest_than_the_listings_is_no_such_file() {
    let place = Place::new(model());
    place.hub.twist(|request, reply| match request.path.ends_with("model.safetensors") {
        true => reply.with("x-linked-etag", "\"abc\""),
        false => reply,
    });
    let line = line(pull(&place.client(), &place.id, &quiet));
    assert!(line.contains("etag is abc"), "{line}");
}

#[test]
fn hostile_paths_and_names_write_nothing() {
    for path in ["../../../evil", "/tmp/evil", "a/../../evil", "..\\evil", "C:evil", "a\u{0}b", "", "a//b"] {
        let files = [(path.to_owned(), small("x"))].into();
        let place = Place::new(Model { commit: COMMIT.to_owned(), files, ..Model::default() });
        let line = line(pull(&place.client(), &place.id, &quiet));
        assert!(line.contains("cannot be a file of this model"), "{line}");
        assert_eq!(place.files(), [""; 0]);
    }
    let evil = || File { etag: "../../../../evil".to_owned(), ..small("x") };
    for (commit, file) in
        [("../../evil", small("x")), (COMMIT, evil()), (COMMIT, File { large: true, ..evil() })]
    {
        let place = Place::new(Model { commit: commit.to_owned(), ..Model::new([("config.json", file)]) });
        assert!(pull(&place.client(), &place.id, &quiet).is_err());
        assert!(place.files().iter().all(|name| !name.contains("evil")), "{:?}", place.files());
    }
}

#[test]
fn redirects_are_followed_as_far_as_is_safe() {
    for (location, said) in [
        ("file:///etc/passwd", "no address of the web"),
        ("/org/name/resolve/x/again", "too often"),
        ("http://[broken/", ""),
    ] {
        let place = Place::new(model());
        place.hub.twist(move |request, reply| match request.path.contains("/resolve/") {
            true => Reply::new(302, "").with("location", location),
            false => reply,
        });
        let line = line(pull(&place.client(), &place.id, &quiet));
        assert!(line.contains(said), "{line}");
    }
    // A model that was renamed: the hub redirects to itself.
    let place = Place::new(Model::default());
    place.hub.add("org/renamed", model());
    place.hub.twist(|request, reply| match request.path.contains("org/name/") {
        true => Reply::new(307, "").with("location", request.path.replace("org/name/", "org/renamed/")),
        false => reply,
    });
    pull(&place.client(), &place.id, &quiet).unwrap();
}

#[test]
fn what_is_refused_has_its_line() {
    let place = Place::new(Model { gated: true, ..model() });
    place.hub.add("org/name-2", model());
    let tell = |id: &str, token: Option<&str>| {
        let settings = Settings { token: token.and_then(Token::new), ..place.settings() };
        line(pull(&Hub::new(settings).unwrap(), &Id::parse(id).unwrap(), &quiet))
    };
    let page = format!("{}/org/name", place.hub.endpoint());
    let gated = tell("org/name", None);
    assert!(gated.contains(&format!("accept its terms at {page}")) && gated.contains("HF_TOKEN"), "{gated}");
    let known = tell("org/name", Some("hf_secret"));
    assert!(known.contains(&page) && known.contains("token's account"), "{known}");
    let misspelt = tell("org/name-3", None);
    assert!(misspelt.contains("did you mean org/name-2, org/name?"), "{misspelt}");
    let nothing = tell("other/x", None);
    assert!(nothing.contains("check its spelling") && nothing.contains("HF_TOKEN"), "{nothing}");
    let revision = tell("org/name@v9", None);
    assert!(revision.contains("no revision v9: it has main, v1"), "{revision}");
    place.hub.twist(|_, _| Reply::new(401, ""));
    let token = tell("org/name", Some("hf_secret"));
    assert!(token.contains("does not accept the token") && token.contains("/settings/tokens"), "{token}");
    place.hub.twist(|_, _| Reply::new(503, "").with("x-error-message", "overloaded"));
    let busy = tell("org/name", None);
    assert!(busy.contains("answers 503 (overloaded)"), "{busy}");
    assert_eq!(
        place.hub.requests().iter().filter(|request| request.path.contains("revision")).count() % 5,
        1
    );
    place.hub.twist(|_, _| Reply::new(429, "").with("retry-after", "7200"));
    assert!(tell("org/name", None).contains("answers 429"), "a wait of hours is not waited for");
    place.hub.twist(|_, _| Reply::new(200, "<html>log in to the network</html>"));
    assert!(tell("org/name", None).contains("does not answer as the hub does"));
    place.hub.twist(|_, _| Reply::new(200, r#"{"siblings": []}"#));
    assert!(tell("org/name", None).contains("names no commit"));
}

#[test]
fn nobody_there_is_one_line_at_once() {
    let place = Place::new(model());
    for endpoint in ["http://127.0.0.1:9", "http://no-such-host.invalid"] {
        let settings = Settings { endpoint: endpoint.to_owned(), ..place.settings() };
        let line = line(pull(&Hub::new(settings).unwrap(), &place.id, &quiet));
        assert!(line.contains("no folder org/name") && line.contains("HTTPS_PROXY"), "{line}");
    }
}

#[test]
fn what_no_disk_holds_is_refused_before_anything_comes() {
    let place = Place::new(model());
    place.hub.twist(|request, reply| match request.path.contains("/revision/") {
        true => {
            let text = String::from_utf8(reply.body.clone()).unwrap();
            Reply { body: text.replace("900000", "9000000000000000000").into_bytes(), ..reply }
        }
        false => reply,
    });
    let line = line(pull(&place.client(), &place.id, &quiet));
    assert!(line.contains("needs 9000000000.0 GB") && line.contains("HF_HUB_CACHE"), "{line}");
    assert_eq!(place.hub.requests().len(), 1);
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
