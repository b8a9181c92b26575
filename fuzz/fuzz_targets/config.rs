//! `config.json`: what is accepted is a model that can be described, and what offramp writes of it is read as
//! the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::{answer, begin, hold};
use offramp_model::Config;
use std::path::Path;

/// A thousand layers' names and a few megabytes of JSON.
const MOST_BYTES: usize = 64 << 20;

fuzz_target!(init: begin(), |data: &[u8]| hold(MOST_BYTES, || read(data)));

fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let origin = Path::new("config.json");
    let Some(config) = answer(Config::from_json(text, origin)) else { return };
    let written = Config::from_json(&config.to_json(), origin).expect("what is written is read");
    assert_eq!(written, config);
    for exit_layer in [0, 1, config.num_hidden_layers, usize::MAX] {
        answer(config.check_exit_layer(exit_layer));
    }
    answer(config.check_token(config.vocab_size as u32));
    if config.num_hidden_layers <= 1000 {
        let values: u64 = config.tensors().iter().map(|spec| spec.len() as u64).sum();
        assert_eq!(values, config.parameter_count(), "{config:?}");
    }
}
