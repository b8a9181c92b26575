//! A corpus that is no table: text, JSON and CSV, packed or not. The first byte chooses.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::scratch::Scratch;
use offramp_fuzz::stories::read;
use offramp_fuzz::{begin, hold};
use std::sync::LazyLock;

/// A story has 64 MiB at most, and is there twice while it is cut.
const MOST_BYTES: usize = 300 << 20;
const ENDS: [&str; 8] = [".jsonl", ".json", ".csv", ".txt", ".jsonl.gz", ".jsonl.zst", ".csv.gz", ".txt.zst"];

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(init: begin(), |data: &[u8]| {
    let Some((&choice, file)) = data.split_first() else { return };
    let end = ENDS[usize::from(choice) % ENDS.len()];
    let path = SCRATCH.write(&format!("corpus{end}"), file);
    hold(MOST_BYTES, || read(&path));
});
