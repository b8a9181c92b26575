//! A recipe: what is accepted describes a model and a schedule.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::{answer, begin, hold};
use offramp_train::Recipe;
use std::path::Path;

const MOST_BYTES: usize = 64 << 20;

fuzz_target!(init: begin(), |data: &[u8]| hold(MOST_BYTES, || read(data)));

fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Some(recipe) = answer(Recipe::from_toml(text, Path::new("recipe.toml"))) else { return };
    let exits = recipe.validation_exits();
    assert!(exits.is_sorted() && exits.first().is_some_and(|&first| first >= 1), "{exits:?}");
    if let Some(config) = answer(recipe.config(257, Some(0))) {
        assert!(config.vocab_size >= 257);
        assert!(exits.iter().all(|&exit| config.check_exit_layer(exit).is_ok()), "{exits:?}");
    }
}
