//! Downloads that break off, stall, lie about lengths or are damaged.

use crate::mock::Reply;
use crate::place::*;
use offramp_hub::{Event, Hub, Settings};
use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

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
