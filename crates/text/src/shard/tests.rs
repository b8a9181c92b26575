//! What is written is read; what is damaged is refused.

use std::fs;

use proptest::prelude::*;

use super::*;

fn write(path: &Path, tokens: &[u32], vocab_size: usize) {
    let mut writer = ShardWriter::create(path, vocab_size).unwrap();
    for part in tokens.chunks(7) {
        writer.write(part, part.len() as u64 * 3).unwrap();
    }
    writer.finish().unwrap().publish().unwrap();
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
        let shard = ShardReader::open(&path).unwrap();
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
        let error = ShardReader::open(&path).unwrap_err().to_string();
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
        assert!(matches!(ShardReader::open(&path), Err(Error::Shard { .. })), "{length}");
    }
    let header = Header { vocab_size: 10, tokens: u64::MAX / 2 + 1, utf8_bytes: 0, payload_crc: 0 };
    fs::write(&path, header.to_bytes()).unwrap();
    let error = ShardReader::open(&path).unwrap_err().to_string();
    assert!(error.contains("do not make a file of 44 bytes"), "{error}");
    fs::write(&path, [7; 100]).unwrap();
    assert!(ShardReader::open(&path).unwrap_err().to_string().contains("not a token shard"));
    assert!(matches!(ShardReader::open(&folder.path().join("absent")), Err(Error::Read { .. })));
}

#[test]
fn ids_beyond_the_vocabulary_are_refused_when_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train-00000.tokens");
    write(&path, &[1, 2, 3, 10, 4], 10);
    let shard = ShardReader::open(&path).unwrap();
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
    let shard = ShardReader::open(&path).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(46).unwrap();
    assert!(matches!(shard.read(0, &mut [0; 3]), Err(Error::Read { .. })));
}
