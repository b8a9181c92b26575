//! `model.safetensors.index.json` beside two shards. The input is the index; the shards are whole, so that
//! what it says of them decides.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::models::{configs, shard};
use offramp_fuzz::scratch::Scratch;
use offramp_fuzz::{answer, begin, hold};
use offramp_model::{Config, Weights};
use std::sync::LazyLock;

const MOST_BYTES: usize = 32 << 20;

static CONFIG: LazyLock<Config> = LazyLock::new(|| configs().swap_remove(0));

static SCRATCH: LazyLock<Scratch> = LazyLock::new(|| {
    let scratch = Scratch::new();
    let specs = CONFIG.tensors();
    let (first, second) = specs.split_at(specs.len() / 2);
    scratch.write("a.safetensors", &shard(first));
    scratch.write("b.safetensors", &shard(second));
    scratch
});

fuzz_target!(init: begin(), |data: &[u8]| {
    SCRATCH.write("model.safetensors.index.json", data);
    hold(MOST_BYTES, || read());
});

fn read() {
    let Some(weights) = answer(Weights::open(SCRATCH.path(), &CONFIG)) else { return };
    for spec in CONFIG.tensors() {
        let values = weights.take(&spec).expect("the shards are whole");
        assert!(values.as_slice().iter().all(|&value| value == 0.5), "{}", spec.name);
    }
}
