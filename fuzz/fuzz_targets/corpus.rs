//! A corpus of text: `.jsonl` and `.txt`. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::scratch::Scratch;
use offramp_fuzz::stories::read;
use offramp_fuzz::{begin, hold};
use std::sync::LazyLock;

const MOST_BYTES: usize = 32 << 20;
const ENDS: [&str; 4] = [".jsonl", ".jsonl", ".jsonl", ".txt"];

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(init: begin(), |data: &[u8]| {
    let Some((&choice, file)) = data.split_first() else { return };
    let end = ENDS[usize::from(choice) % ENDS.len()];
    let path = SCRATCH.write(&format!("corpus{end}"), file);
    hold(MOST_BYTES, || read(&path));
});
