//! `generation_config.json`: what it says of sampling can be sampled with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::{answer, begin, hold};
use offramp_pipeline::GenerationConfig;
use std::path::Path;

const MOST_BYTES: usize = 32 << 20;

fuzz_target!(init: begin(), |data: &[u8]| hold(MOST_BYTES, || read(data)));

fn read(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let origin = Path::new("generation_config.json");
    let Some(said) = answer(GenerationConfig::from_json(text, origin)) else { return };
    assert!(said.temperature.is_none_or(|temperature| temperature.is_finite() && temperature >= 0.0));
    assert!(said.top_p.is_none_or(|top_p| top_p > 0.0 && top_p <= 1.0), "{said:?}");
    assert!(said.repetition_penalty.is_none_or(|penalty| penalty.is_finite() && penalty > 0.0), "{said:?}");
}
