//! What is written is read; what is damaged is refused.

use std::fs;

use proptest::prelude::*;

use super::*;

const TOKENIZER: Fingerprint = Fingerprint(7);

fn write(path: &Path, tokens: &[u32], vocab_size: usize) {
    let mut writer = ShardWriter::create(
        Unfinished::create(path).unwrap(),
        vocab_size,
        TOKENIZER,
        FingerprintHasher::new(),
    )
    .unwrap();
    for part in tokens.chunks(7) {
        writer.write(part, part.len() as u64 * 3).unwrap();
    }
    writer.finish().unwrap().publish().unwrap();
}

fn open(path: &Path) -> Result<ShardReader> {
    ShardReader::open(path, &mut FingerprintHasher::new())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn tokens_come_back(
        tokens in prop::collection::vec(0u32..60_000, 0..100),
        wide in any::<bool>(),
        from in any::<prop::sample::Index>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train-00000.tokens");
        let vocab_size = if wide { 65_537 } else { 65_536 };
        write(&path, &tokens, vocab_size);
        let width = if wide { 4 } else { 2 };
        prop_assert_eq!(fs::metadata(&path).unwrap().len() as usize, HEADER_BYTES + width * tokens.len());
        let shard = open(&path).unwrap();
        prop_assert_eq!(shard.header().tokens, tokens.len() as u64);
        prop_assert_eq!(shard.header().utf8_bytes, tokens.len() as u64 * 3);
        let start = from.index(tokens.len() + 1);
        let mut out = vec![0; tokens.len() - start];
        shard.read(start as u64, &mut out).unwrap();
        prop_assert_eq!(out, &tokens[start..]);
    }

    /// One changed byte, anywhere, is found when the shard is opened.
    #[test]
    fn damage_is_found(at in any::<prop::sample::Index>(), change in 1u8..=255) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("train-00000.tokens");
        write(&path, &[1, 2, 3, 500, 4], 501);
        let mut bytes = fs::read(&path).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= change;
        fs::write(&path, bytes).unwrap();
        let error = open(&path).unwrap_err().to_string();
        prop_assert!(error.contains("train-00000.tokens") && error.contains("prepare"), "{}", error);
    }
}

#[test]
fn truncated_lying_and_foreign_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-00000.tokens");
    write(&path, &[1, 2, 3], 10);
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(matches!(open(&path), Err(Error::Shard { .. })), "{length}");
    }
    let prints = Prints { tokenizer: TOKENIZER, split: FingerprintHasher::new().fingerprint() };
    for (prints, bytes) in [(Some(prints), 60), (None, 44)] {
        for tokens in [u64::MAX, u64::MAX / 2 + 1, 1] {
            let header = Header { vocab_size: 10, tokens, utf8_bytes: 0, prints, payload_crc: 0 };
            fs::write(&path, header.to_bytes()).unwrap();
            let error = open(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("do not make a file of {bytes} bytes")), "{error}");
        }
    }
    fs::write(&path, [7; 100]).unwrap();
    assert!(open(&path).unwrap_err().to_string().contains("not a token shard"));
    assert!(matches!(open(&folder.path().join("absent")), Err(Error::Read { .. })));
}

#[test]
fn ids_beyond_the_vocabulary_are_refused_when_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-00000.tokens");
    write(&path, &[1, 2, 3, 10, 4], 10);
    let shard = open(&path).unwrap();
    let mut out = [0; 3];
    shard.read(0, &mut out).unwrap();
    let error = shard.read(1, &mut out).unwrap_err();
    assert!(
        matches!(error, Error::TokenBeyondVocabulary { id: 10, position: 3, vocab_size: 10, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("train-00000.tokens"));
}

#[test]
fn a_file_that_shrinks_after_opening_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-00000.tokens");
    write(&path, &[1, 2, 3], 10);
    let shard = open(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(62).unwrap();
    assert!(matches!(shard.read(0, &mut [0; 3]), Err(Error::Read { .. })));
}

/// A file of version 1, byte by byte, as earlier programs wrote it.
#[test]
fn shards_of_version_1_are_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-00000.tokens");
    let ids: Vec<u8> = [1u16, 2, 500].iter().flat_map(|id| id.to_le_bytes()).collect();
    let mut bytes = b"offrampT".to_vec();
    for number in [1, 2, 501, crc32fast::hash(&ids)] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend([3u64, 9].iter().flat_map(|number| number.to_le_bytes()));
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    bytes.extend(&ids);
    fs::write(&path, &bytes).unwrap();
    let mut sum = FingerprintHasher::new();
    let shard = ShardReader::open(&path, &mut sum).unwrap();
    assert_eq!((shard.header().prints, shard.header().utf8_bytes), (None, 9));
    let mut out = [0; 3];
    shard.read(0, &mut out).unwrap();
    assert_eq!(out, [1, 2, 500]);
    // The ids alone determine the fingerprint: FNV-1a, computed in Python.
    assert_eq!(sum.fingerprint().to_string(), "d0ac1718672fdc3a");
    bytes[8] = 3;
    fs::write(&path, &bytes).unwrap();
    let error = open(&path).unwrap_err().to_string();
    assert!(error.contains("of version 3, and this program reads 2"), "{error}");
}

/// An id may lie across the end of a buffer: the sum is still that of all ids.
#[test]
fn the_sum_is_of_every_id() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-00000.tokens");
    let ids: Vec<u32> =
        (0..BUFFER_BYTES as u32 / 2 + 12_345).map(|i| i.wrapping_mul(2_654_435_761) % 70_000).collect();
    write(&path, &ids, 70_000);
    let (mut read, mut all) = (FingerprintHasher::new(), FingerprintHasher::new());
    ShardReader::open(&path, &mut read).unwrap();
    all.add_ids(&ids);
    assert_eq!(read.fingerprint(), all.fingerprint());
}

/// Complete shards in a wrong order, or with one missing, are refused.
#[test]
fn shards_that_do_not_follow_each_other_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [first, second] = ["train-00000.tokens", "train-00001.tokens"].map(|name| folder.path().join(name));
    write(&first, &[1, 2, 3], 10);
    let mut sum = FingerprintHasher::new();
    ShardReader::open(&first, &mut sum).unwrap();
    let mut writer = ShardWriter::create(Unfinished::create(&second).unwrap(), 10, TOKENIZER, sum).unwrap();
    writer.write(&[4, 5], 2).unwrap();
    writer.finish().unwrap().publish().unwrap();
    ShardReader::open(&second, &mut sum).unwrap();
    let message = open(&second).unwrap_err().to_string();
    assert!(message.contains("do not follow") && message.contains("prepare"), "{message}");
}
