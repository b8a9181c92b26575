//! How an input becomes int8: the formula, its corners, and that every table makes the very same codes.

use super::*;
use crate::dispatch::available;
use proptest::prelude::*;

const CODES: [StripFormat; 4] = StripFormat::ALL;

#[derive(Debug)]
struct Token {
    codes: Vec<i8>,
    scales: Vec<f32>,
    offsets: Vec<i32>,
}

fn quantized(table: &Table, format: StripFormat, x: &[f32]) -> Token {
    let blocks = format.blocks(x.len());
    let mut token = Token {
        codes: vec![77; blocks * format.block()],
        scales: vec![7.7; blocks],
        offsets: vec![7; blocks],
    };
    let out = TokenMut {
        codes: &mut token.codes,
        scales: &mut token.scales,
        offsets: &mut token.offsets,
        places: 1,
    };
    (table.quantize_token)(x, format, out);
    token
}

/// Of a block without an inverse nothing is left.
fn has_inverse(largest: f32) -> bool {
    largest > 0.0 && (127.0 / largest).is_finite()
}

#[track_caller]
fn check(table: &Table, format: StripFormat, x: &[f32]) {
    let Token { codes: row, scales, offsets } = quantized(table, format, x);
    for (b, whole) in row.chunks(format.block()).enumerate() {
        let x = &x[b * format.block()..x.len().min((b + 1) * format.block())];
        let largest = x.iter().fold(0f32, |most, x| most.max(x.abs()));
        let what = format!("{} {format:?} block {b}, up to {largest:e}", table.name);
        assert_eq!(scales[b], largest / 127.0, "{what}");
        assert_eq!(offsets[b], -format.zero() * whole.iter().map(|&c| i32::from(c)).sum::<i32>(), "{what}");
        assert!(whole[x.len()..].iter().all(|&padding| padding == 0), "{what}");
        for (&x, &code) in x.iter().zip(whole) {
            let exact = if has_inverse(largest) { 127.0 * f64::from(x) / f64::from(largest) } else { 0.0 };
            // Half a code, and what the inverse was rounded by.
            assert!((f64::from(code) - exact).abs() <= 0.50002, "{what}: {x:e} is {code}, not {exact}");
            assert!(x.abs() < largest || !has_inverse(largest) || code.abs() == 127, "{what}: the largest");
        }
    }
}

fn values() -> impl Strategy<Value = Vec<f32>> {
    let magnitude = prop_oneof![
        Just(1.0f32),
        Just(f32::MAX),
        Just(1e30),
        Just(1e-30),
        Just(4e-37),
        Just(f32::MIN_POSITIVE),
        Just(1e-42),
        Just(0.0),
    ];
    // Pieces of many magnitudes, so that blocks differ.
    let piece = (magnitude, prop::collection::vec(-1.0f32..=1.0, 1..90))
        .prop_map(|(magnitude, piece)| piece.into_iter().map(move |x| x * magnitude).collect::<Vec<_>>());
    prop::collection::vec(piece, 1..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn codes_are_the_nearest_and_the_same_in_every_table(x in values()) {
        for format in CODES {
            let tables = available();
            let reference = quantized(tables[0], format, &x);
            for table in tables {
                check(table, format, &x);
                let token = quantized(table, format, &x);
                prop_assert!(token.codes == reference.codes, "{} {format:?}", table.name);
                prop_assert!(token.offsets == reference.offsets, "{} {format:?}", table.name);
                let bits = |scales: &[f32]| scales.iter().map(|s| s.to_bits()).collect::<Vec<_>>();
                prop_assert!(bits(&token.scales) == bits(&reference.scales), "{} {format:?}", table.name);
            }
        }
    }
}

#[test]
fn ties_go_to_the_even_code() {
    let x = [127.0, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 125.5, 126.5, -126.5, 0.49, -0.51, 0.0, -0.0];
    let whole = [127, 0, 2, 2, 0, -2, -2, 126, 126, -126, 0, -1, 0, 0];
    for (table, format) in available().into_iter().flat_map(|table| CODES.map(|format| (table, format))) {
        let token = quantized(table, format, &x);
        assert_eq!((&token.codes[..14], token.scales[0]), (&whole[..], 1.0), "{} {format:?}", table.name);
    }
}

#[test]
fn what_is_no_number_shows_in_its_block_alone() {
    for (table, format) in available().into_iter().flat_map(|table| CODES.map(|format| (table, format))) {
        for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for place in [0, format.block() - 1, format.block(), 3 * format.block()] {
                let mut x = vec![0.25; 3 * format.block() + 1]; // the last block is padded
                x[place] = bad;
                let found: Vec<_> =
                    quantized(table, format, &x).scales.iter().map(|s| s.is_finite()).collect();
                let expected: Vec<_> = (0..4).map(|block| block != place / format.block()).collect();
                assert_eq!(found, expected, "{} {format:?} {bad} at {place}", table.name);
            }
        }
    }
}

#[test]
fn rows_that_do_not_fit_are_refused() {
    let fails = |call: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err();
    for table in available() {
        let call = |places: usize, row: usize, scales: usize, offsets: usize| {
            let (mut row, mut scales, mut offsets) = (vec![0; row], vec![0.0; scales], vec![0; offsets]);
            let out = TokenMut { codes: &mut row, scales: &mut scales, offsets: &mut offsets, places };
            (table.quantize_token)(&[1.0; 100], StripFormat::Int8, out);
        };
        call(1, 128, 2, 2);
        call(3, 4 * 64, 4, 4); // the second block stands three places on
        for (places, row, scales, offsets) in [
            (1, 64, 2, 2),
            (1, 127, 2, 2),
            (1, 128, 1, 2),
            (1, 128, 2, 1),
            (3, 4 * 64 - 1, 4, 4),
            (3, 4 * 64, 3, 4),
        ] {
            let what = format!("{} {places} {row} {scales} {offsets}", table.name);
            assert!(fails(&|| call(places, row, scales, offsets)), "{what}");
        }
        assert!(
            fails(&|| BlockQuantizer::default().quantize(table, StripFormat::Int4, &[0.0; 7], 3)),
            "a torn token"
        );
    }
}
