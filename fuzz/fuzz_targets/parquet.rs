//! A parquet file, its footer above all: its stories come, or one fault.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::scratch::Scratch;
use offramp_fuzz::stories::read;
use offramp_fuzz::{begin, hold};
use std::sync::LazyLock;

/// Pages, dictionaries and what the parquet crate keeps; a file of fuzzing is at most 64 KiB.
const MOST_BYTES: usize = 96 << 20;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(init: begin(), |data: &[u8]| {
    let path = SCRATCH.write("corpus.parquet", data);
    hold(MOST_BYTES, || read(&path));
});
