//! A run's validation against the engine's forward, by the protocol of `docs/measures.md`.

use super::*;
use offramp_text::{TokenStream, Windows};

/// The nats and bytes of the validation split at `exit`, in windows of `length`, one token at a time.
fn measured(place: &Place, exit: usize, length: usize, windows: usize) -> (f64, u64, u64) {
    let model = Llama::load(&place.path("run/model"), &Formats::default()).unwrap();
    let stream = TokenStream::open(&place.path("corpus"), "valid").unwrap();
    let tokenizer = Tokenizer::from_folder(&place.path("corpus")).unwrap();
    let (mut nats, mut tokens, mut bytes) = (0.0, 0, 0);
    for window in Windows::new(&stream, length).unwrap().iter().take(windows) {
        let window = window.unwrap();
        let (mut hidden, mut cache, mut logits) = (model.new_hidden(), model.new_cache(length), Vec::new());
        model.embed(window.inputs(), &mut hidden).unwrap();
        model
            .forward(
                0..exit,
                &mut hidden,
                &mut offramp_model::Batch::one(&mut cache),
                &mut offramp_model::Scratch::new(),
            )
            .unwrap();
        model.head(&hidden, 0..window.inputs().len(), &mut logits, &mut offramp_model::Scratch::new());
        for (row, &label) in logits.chunks(logits.len() / window.labels().len()).zip(window.labels()) {
            let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
            nats += total.ln() - f64::from(row[label as usize]);
            tokens += 1;
            bytes += tokenizer.token_bytes(label).unwrap() as u64;
        }
    }
    (nats, tokens, bytes)
}

#[track_caller]
fn assert_validated(keys: &str, exits: &[usize], windows: usize) {
    let place = Place::new();
    let text = recipe("").text().replace("steps = 20", "steps = 3").replace("every = 8", keys);
    let recipe = Recipe::from_toml(&text, Path::new("r.toml")).unwrap();
    let record = quietly(&place.job(&recipe, "run", &GO)).unwrap().validation.unwrap();
    assert_eq!(record.exits.iter().map(|exit| exit.exit_layer).collect::<Vec<_>>(), exits);
    for found in &record.exits {
        let (nats, tokens, bytes) = measured(&place, found.exit_layer, 24, windows);
        assert!((found.loss - nats / tokens as f64).abs() < 1e-5, "{found:?}, not {nats} / {tokens}");
        if found.exit_layer == 4 {
            let expected = nats / std::f64::consts::LN_2 / bytes as f64;
            assert!((record.bits_per_byte - expected).abs() < 1e-5, "{record:?}, not {expected}");
        }
    }
}

#[test]
fn it_is_the_protocols_over_the_whole_split() {
    let place = Place::new();
    let stream = TokenStream::open(&place.path("corpus"), "valid").unwrap();
    assert_ne!((stream.len() - 1) % 24, 0, "the last window is shorter");
    let (_, tokens, bytes) = {
        let recipe = recipe("");
        quietly(&place.job(&recipe, "run", &GO)).unwrap();
        measured(&place, 4, 24, usize::MAX)
    };
    let tokenizer = Tokenizer::from_folder(&place.path("corpus")).unwrap();
    let mut first = [0];
    stream.read(0, &mut first).unwrap();
    let first = tokenizer.token_bytes(first[0]).unwrap() as u64;
    // Every token but the first; `<|endoftext|>` counts no bytes.
    assert_eq!((tokens, bytes), (stream.len() - 1, stream.utf8_bytes() - first));
    assert_validated("every = 0", &[1, 2, 3, 4], usize::MAX);
}

#[test]
fn it_stops_after_whole_windows_and_adds_the_full_model() {
    assert_validated("every = 1\nexits = [3, 1, 3]\nmax_tokens = 97", &[1, 3, 4], 5);
    assert_validated("every = 2\nexits = []\nmax_tokens = 1", &[4], 1);
}
