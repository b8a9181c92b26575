//! Packing: where every code stands, and that it comes back.

use super::layout::{BLOCK, STRIP};
use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn codes_come_back(
        (width, codes) in (1usize..200, 1usize..=STRIP).prop_flat_map(|(width, rows)| {
            (Just(width), prop::collection::vec(-1i8..=1, rows * width))
        })
    ) {
        let mut strip = vec![0x5a; strip_bytes(width)];
        pack(&codes, width, &mut strip);
        let mut found = vec![77; codes.len()];
        unpack(&strip, width, &mut found);
        prop_assert_eq!(found, codes);
    }
}

/// The drawing at the module's head.
#[test]
fn every_code_stands_where_it_is_drawn() {
    let width = BLOCK + 16; // and so two blocks, of which the second has one line
    let code = |row: usize, k: usize| ((row * 5 + k * 7 + k / 16) % 3) as i8 - 1;
    let codes: Vec<i8> = (0..31 * width).map(|at| code(at / width, at % width)).collect();
    let mut strip = vec![0x5a; strip_bytes(width)];
    pack(&codes, width, &mut strip);
    for (line, bytes) in strip.chunks(128).enumerate() {
        for (at, &byte) in bytes.iter().enumerate() {
            let (row, i) = (at / 4, at % 4);
            for bits in 0..4 {
                let k = line * 16 + bits * 4 + i;
                let expected = if row < 31 && k < width { code(row, k) } else { 0 };
                assert_eq!((byte >> (2 * bits) & 3) as i8 - 1, expected, "row {row}, k {k}");
            }
        }
    }
    assert_eq!(strip.len() * 8, STRIP * 2 * BLOCK * 2);
}

#[test]
fn bytes_are_counted_or_are_none() {
    assert_eq!(strip_bytes(65), 2 * 512);
    assert_eq!([0, 1, 32, 33].map(|rows| bytes(rows, 65)), [0, 1, 1, 2].map(|strips| Some(strips * 1024)));
    assert_eq!(bytes(usize::MAX, usize::MAX), None);
}

#[test]
fn what_is_no_strip_is_refused() {
    let fails = |call: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err();
    let bytes = strip_bytes(10);
    for (rows, width, bytes) in
        [(33 * 10, 10, bytes), (15, 10, bytes), (20, 10, bytes - 1), (20, 10, bytes + 1)]
    {
        assert!(fails(&|| pack(&vec![0; rows], width, &mut vec![0; bytes])), "{rows} codes by {width}");
        assert!(fails(&|| unpack(&vec![0; bytes], width, &mut vec![0; rows])), "{rows} codes by {width}");
    }
}

#[test]
fn the_inputs_know_their_places() {
    assert!(InputQuantization::ALL.iter().enumerate().all(|(index, input)| input.index() == index));
}
