//! A prepared folder: `corpus.json` and a token shard, whose checksums are set right, so that what they guard
//! is reached. The first byte says what the second, a count, cuts off as the manifest, and whether checksums
//! stay wrong.
#![no_main]

use libfuzzer_sys::fuzz_target;
use offramp_fuzz::scratch::Scratch;
use offramp_fuzz::{answer, begin, hold};
use offramp_text::{TokenStream, Windows};
use std::sync::LazyLock;

const MOST_BYTES: usize = 32 << 20;
/// Where the header of each version ends with its checksum, and where that of the ids stands
/// (`crates/text/src/shard.rs`).
const HEADER_CRC_1: usize = 40;
const HEADER_CRC_2: usize = 56;
const IDS_CRC: usize = 20;

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

fuzz_target!(init: begin(), |data: &[u8]| {
    let Some((&[choice, length_low, length_high], rest)) = data.split_first_chunk() else { return };
    let length = usize::from(u16::from_le_bytes([length_low, length_high])).min(rest.len());
    let (manifest, shard) = rest.split_at(length);
    let mut shard = shard.to_vec();
    if choice % 8 != 0 {
        mend(&mut shard);
    }
    SCRATCH.write("corpus.json", manifest);
    SCRATCH.write("train-00000.tokens", &shard);
    hold(MOST_BYTES, || read());
});

/// Sets the checksums right.
fn mend(shard: &mut [u8]) {
    let header_crc = if shard.get(8) == Some(&1) { HEADER_CRC_1 } else { HEADER_CRC_2 };
    if shard.len() >= header_crc + 4 {
        let ids = crc32fast::hash(&shard[header_crc + 4..]);
        shard[IDS_CRC..IDS_CRC + 4].copy_from_slice(&ids.to_le_bytes());
        let header = crc32fast::hash(&shard[..header_crc]);
        shard[header_crc..header_crc + 4].copy_from_slice(&header.to_le_bytes());
    }
}

fn read() {
    answer(TokenStream::open(SCRATCH.path(), "valid"));
    let Some(stream) = answer(TokenStream::open(SCRATCH.path(), "train")) else { return };
    let mut all = vec![0; stream.len() as usize];
    if answer(stream.read(0, &mut all)).is_some() {
        assert!(all.iter().all(|&id| (id as usize) < stream.vocab_size()));
    }
    answer(stream.read(stream.len(), &mut [0]));
    let Some(windows) = answer(Windows::new(&stream, 3)) else { return };
    let labels =
        (0..windows.len()).map(|index| answer(windows.get(index)).map_or(0, |window| window.labels().len()));
    assert!(labels.sum::<usize>() < all.len());
}
