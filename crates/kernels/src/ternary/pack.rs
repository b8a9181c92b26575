//! Packs ternary codes into strips, and unpacks them.

use super::layout::{BLOCK_BYTES, LINE, QUAD, QUADS, STEP, STRIP, ZEROS, strip_bytes};

/// Packs up to [`STRIP`](crate::strips::STRIP) rows of codes −1, 0 and 1, `[rows, in_features]`, into one
/// strip; rows that are missing are zeros.
///
/// # Panics
/// If there are more rows, or `strip` is not [`strip_bytes`] long.
pub fn pack(codes: &[i8], in_features: usize, strip: &mut [u8]) {
    assert!(codes.len() <= STRIP * in_features && codes.len().is_multiple_of(in_features), "rows of a strip");
    assert_eq!(strip.len(), strip_bytes(in_features), "one strip");
    debug_assert!(codes.iter().all(|code| (-1..=1).contains(code)), "codes are −1, 0 or 1");
    strip.fill(ZEROS);
    for (row, codes) in codes.chunks_exact(in_features).enumerate() {
        let (whole, rest) = codes.as_chunks::<STEP>();
        let mut padded = [0; STEP];
        padded[..rest.len()].copy_from_slice(rest);
        let last = (!rest.is_empty()).then_some(&padded);
        for (line, codes) in strip.as_chunks_mut::<LINE>().0.iter_mut().zip(whole.iter().chain(last)) {
            let stored = |i: usize, quad: usize| ((codes[quad * QUAD + i] + 1) as u8 & 3) << (2 * quad);
            let bytes: [u8; QUAD] =
                std::array::from_fn(|i| stored(i, 0) | stored(i, 1) | stored(i, 2) | stored(i, 3));
            line[row * QUAD..][..QUAD].copy_from_slice(&bytes);
        }
    }
}

/// The codes of a strip's first rows, as many as `rows` `[rows, in_features]` has room for.
///
/// # Panics
/// If these are more than [`STRIP`](crate::strips::STRIP), or `strip` is not [`strip_bytes`] long.
pub fn unpack(strip: &[u8], in_features: usize, rows: &mut [i8]) {
    assert!(rows.len() <= STRIP * in_features && rows.len().is_multiple_of(in_features), "rows of a strip");
    assert_eq!(strip.len(), strip_bytes(in_features), "one strip");
    const _: () = assert!(BLOCK_BYTES.is_multiple_of(LINE));
    for (row, codes) in rows.chunks_exact_mut(in_features).enumerate() {
        for (line, codes) in strip.as_chunks::<LINE>().0.iter().zip(codes.chunks_mut(STEP)) {
            let bytes = &line[row * QUAD..][..QUAD];
            for (k, code) in codes.iter_mut().enumerate() {
                *code = (bytes[k % QUAD] >> (2 * (k / QUAD % QUADS)) & 3) as i8 - 1;
            }
        }
    }
}
