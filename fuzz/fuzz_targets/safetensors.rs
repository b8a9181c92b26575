//! A safetensors file: what is accepted can be loaded and run. The first byte chooses the model that it
//! should hold.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::models::configs;
use offramp_fuzz::scratch::Scratch;
use offramp_fuzz::{answer, begin, hold};
use offramp_model::{Batch, Config, Formats, Llama, Weights};
use std::sync::LazyLock;

/// The values of a model of a few kilobytes, in every form that they pass through, and the work space of
/// threads.
const MOST_BYTES: usize = 64 << 20;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);
static CONFIGS: LazyLock<Vec<Config>> = LazyLock::new(configs);

fuzz_target!(init: begin(), |data: &[u8]| {
    let Some((&choice, file)) = data.split_first() else { return };
    let config = &CONFIGS[usize::from(choice) % CONFIGS.len()];
    SCRATCH.write("config.json", config.to_json().as_bytes());
    SCRATCH.write("model.safetensors", file);
    hold(MOST_BYTES, || read(config));
});

fn read(config: &Config) {
    let Some(weights) = answer(Weights::open(SCRATCH.path(), config)) else { return };
    assert!(weights.formats().values().sum::<u64>() > 0 && weights.bytes() > 8);
    for spec in config.tensors() {
        if let Some(values) = answer(weights.take(&spec)) {
            let values = values.as_slice();
            assert!(values.len() == spec.len() && values.iter().all(|value| value.is_finite()));
        }
    }
    let Some(llama) = answer(Llama::load(SCRATCH.path(), &Formats::default())) else { return };
    let (mut hidden, mut cache, mut logits) = (llama.new_hidden(), llama.new_cache(2), Vec::new());
    llama.embed(&[0, 2], &mut hidden).expect("two tokens of the vocabulary");
    let (layers, mut scratch) = (0..config.num_hidden_layers, offramp_model::Scratch::new());
    if answer(llama.forward(layers, &mut hidden, &mut Batch::one(&mut cache), &mut scratch)).is_some() {
        llama.head(&hidden, 1..2, &mut logits, &mut scratch);
        assert_eq!(logits.len(), config.vocab_size);
    }
}
