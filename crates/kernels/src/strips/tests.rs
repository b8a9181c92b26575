//! Packing: how far a weight may move, and where every byte stands.

use super::layout::{QUAD, SCALES};
use super::*;
use half::{bf16, f16};
use proptest::prelude::*;

const CODES: [StripFormat; 4] = StripFormat::ALL;
/// What packing must overwrite.
const DIRT: u8 = 0x5a;

fn packed(format: StripFormat, rows: &[f32], in_features: usize) -> Vec<u8> {
    let mut strip = vec![DIRT; format.strip_bytes(in_features)];
    pack(format, rows, in_features, &mut strip);
    strip
}

fn unpacked(format: StripFormat, strip: &[u8], rows: usize, in_features: usize) -> Vec<f32> {
    let mut values = vec![f32::NAN; rows * in_features];
    unpack(format, strip, in_features, &mut values);
    values
}

/// There and back.
fn coded(format: StripFormat, rows: &[f32], in_features: usize) -> Vec<f32> {
    unpacked(format, &packed(format, rows, in_features), rows.len() / in_features, in_features)
}

fn scale(strip: &[u8], format: StripFormat, block: usize, row: usize) -> f32 {
    let at = (block + 1) * format.block_bytes() - SCALES + 2 * row;
    format.scale([strip[at], strip[at + 1]])
}

/// As a strip of the format has it.
fn stored(format: StripFormat, scale: f32) -> [u8; 2] {
    if format.has_halves() { f16::from_f32(scale).to_le_bytes() } else { bf16::from_f32(scale).to_le_bytes() }
}

/// The least code that packing makes.
fn least(format: StripFormat) -> i32 {
    if format.bits() == 8 { -127 } else { -8 }
}

fn squares(weights: &[f32], coded: impl Iterator<Item = f64>) -> f64 {
    weights.iter().zip(coded).map(|(&weight, coded)| (f64::from(weight) - coded).powi(2)).sum()
}

/// A few rows of one width, and of one of many magnitudes.
fn rows() -> impl Strategy<Value = (usize, Vec<f32>)> {
    let magnitudes = [1.0f32, f32::MAX, 1e30, 1e-30, 1e-36, 1e-38, 1e-40, 1e-44];
    let magnitude = prop::sample::select(magnitudes.to_vec());
    (1usize..=4, 1usize..150, magnitude).prop_flat_map(|(rows, width, magnitude)| {
        let values = prop::collection::vec(-1.0f32..=1.0, rows * width);
        values.prop_map(move |values| (width, values.into_iter().map(|x| x * magnitude).collect()))
    })
}

proptest! {
    #[test]
    fn int8_moves_a_weight_by_half_a_scale((width, weights) in rows()) {
        let strip = packed(StripFormat::Int8, &weights, width);
        let coded = unpacked(StripFormat::Int8, &strip, weights.len() / width, width);
        for (at, (&weight, coded)) in weights.iter().zip(coded).enumerate() {
            let scale = f64::from(scale(&strip, StripFormat::Int8, at % width / 64, at / width));
            // The smallest scales are whole multiples of 2⁻¹³³, which 127 of them must make up for.
            let bound = 0.500001 * scale + 127.0 * 2f64.powi(-134);
            let error = (f64::from(weight) - f64::from(coded)).abs();
            prop_assert!(error <= bound, "{weight:e} became {coded:e}, with a scale of {scale:e}");
        }
    }

    #[test]
    fn int4_is_never_worse_than_the_plain_scale((width, weights) in rows()) {
        let strip = packed(StripFormat::Int4, &weights, width);
        for (row, weights) in weights.chunks(width).enumerate() {
            for (block, weights) in weights.chunks(32).enumerate() {
                // In `f64`: −8 scales of the largest float may be beyond it.
                let nearest = |scale: f32| {
                    let scale = f64::from(scale);
                    let code = move |w: f64| if scale == 0.0 { 0.0 } else { (w / scale).round().clamp(-8.0, 7.0) };
                    squares(weights, weights.iter().map(|&w| code(f64::from(w)) * scale))
                };
                let largest = weights.iter().fold(0f32, |a, &w| if w.abs() > a.abs() { w } else { a });
                let (found, plain) = (nearest(scale(&strip, StripFormat::Int4, block, row)), nearest(bf16::from_f32(largest / -8.0).to_f32()));
                let bound = plain + 1e-5 * f64::from(largest).powi(2);
                prop_assert!(found <= bound, "{found:e} is more than {plain:e}, of {largest:e}");
            }
        }
        if weights.iter().all(|w| w.abs() < 1e38) {
            let coded = coded(StripFormat::Int4, &weights, width);
            for (&weight, coded) in weights.iter().zip(&coded) {
                prop_assert!(coded.is_finite(), "{weight:e} became {coded:e}");
            }
        }
    }
}

#[test]
fn the_fit_is_better_than_the_plain_scale_where_it_can_be() {
    let weights: Vec<f32> = (0..32).map(|i| (i as f32 * 1.7).sin()).collect();
    let fitted = squares(&weights, coded(StripFormat::Int4, &weights, 32).into_iter().map(f64::from));
    let largest = weights.iter().fold(0f32, |a, &w| if w.abs() > a.abs() { w } else { a });
    let plain = f64::from(bf16::from_f32(largest / -8.0).to_f32());
    let plain =
        squares(&weights, weights.iter().map(|&w| (f64::from(w) / plain).round().clamp(-8.0, 7.0) * plain));
    assert!(fitted < 0.98 * plain, "{fitted} and {plain}");
}

#[test]
fn weights_on_the_grid_stay_what_they_are() {
    for scale in [1.0f32, 0.0078125, 1.515625, 2f32.powi(100), 2f32.powi(-100)] {
        // Halves have a smaller range.
        let within = |format: &StripFormat| !format.has_halves() || (1e-4..1e4).contains(&scale);
        for format in CODES.into_iter().filter(within) {
            let (least, width) = (least(format), 3 * format.block() - 5);
            let span = if format.bits() == 8 { 255 } else { 16 };
            // Each block has the code that its scale is found by.
            let code = |at: usize| {
                if at.is_multiple_of(format.block()) { least } else { least + (at * 37) as i32 % span }
            };
            let row: Vec<f32> = (0..width).map(|at| code(at) as f32 * scale).collect();
            let turned: Vec<f32> = row.iter().map(|weight| -weight).collect();
            let rows = [row, turned].concat();
            assert_eq!(coded(format, &rows, width), rows, "{format:?} by {scale}");
        }
        // Without −8, too.
        let sevens: Vec<f32> = (0..32).map(|at| (at % 15 - 7) as f32 * scale).collect();
        assert_eq!(coded(StripFormat::Int4, &sevens, 32), sevens, "{scale}");
    }
}

#[test]
fn rows_of_zeros_and_rows_that_are_missing_are_zeros() {
    for format in CODES {
        let (width, stored) = (70, [0x80, 0x88][usize::from(format.bits() == 4)]);
        let mut weights = vec![-8.0; 3 * width];
        weights[width..2 * width].fill(0.0);
        weights[width + 1] = -0.0;
        let strip = packed(format, &weights, width);
        let all = unpacked(format, &strip, STRIP, width);
        assert!(all[..width].iter().all(|x| (x + 8.0).abs() < 0.03), "{format:?}");
        assert_eq!(all[width..2 * width], [0.0; 70]);
        assert!(all[3 * width..].iter().all(|&x| x.to_bits() == 0), "{format:?}");
        for row in (1..STRIP).filter(|&row| row != 2) {
            for (b, block) in strip.chunks(format.block_bytes()).enumerate() {
                assert_eq!(scale(&strip, format, b, row), 0.0, "{format:?} row {row}");
                assert!(
                    (0..block.len() - SCALES)
                        .all(|at| at % (STRIP * QUAD) / QUAD != row || block[at] == stored)
                );
            }
        }
        assert_eq!(unpacked(format, &packed(format, &[], width), STRIP, width), vec![0.0; STRIP * width]);
    }
}

#[test]
fn a_weight_that_is_not_finite_shows_in_its_block_alone() {
    for (format, bad) in
        CODES.iter().flat_map(|&format| [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].map(|x| (format, x)))
    {
        let width = 3 * format.block();
        for place in [0, format.block(), 2 * format.block() - 1] {
            let mut weights = vec![127.0; 2 * width];
            weights[width + place] = bad;
            let coded = coded(format, &weights, width);
            for (at, x) in coded.into_iter().enumerate() {
                let within = at >= width && (at - width) / format.block() == place / format.block();
                assert!(
                    if within { !x.is_finite() } else { (x - 127.0).abs() < 0.5 },
                    "{format:?} {bad} at {place}: {x} at {at}"
                );
            }
        }
    }
}

/// The drawing at the module's head: for each block the codes of 32 rows, four k of a row side by side, then
/// 32 scales. In 4 bits two such groups of four k share their bytes, the earlier one low.
#[test]
fn every_byte_stands_where_it_is_drawn() {
    // Scale 1 in row 0, 2 in row 1, …; the code of (row, k) is unlike its neighbours'.
    let code = |format: StripFormat, row: usize, k: usize| match format {
        _ if k.is_multiple_of(format.block()) => least(format),
        StripFormat::Int8 | StripFormat::Q8_0 => ((row * 31 + k * 7) % 255) as i32 - 127,
        StripFormat::Int4 | StripFormat::Q4_0 => ((row * 5 + k * 3) % 16) as i32 - 8,
    };
    for format in CODES {
        let width = 2 * format.block();
        let at = |at: usize| (code(format, at / width, at % width) * (at / width + 1) as i32) as f32;
        let weights: Vec<f32> = (0..STRIP * width).map(at).collect();
        let strip = packed(format, &weights, width);
        let mut drawn = Vec::new();
        for block in 0..2 {
            let of = |row, k| (code(format, row, block * format.block() + k) + format.zero()) as u8;
            for first in (0..format.block()).step_by(4 * 8 / format.bits()) {
                for (row, k) in (0..STRIP).flat_map(|row| (first..first + 4).map(move |k| (row, k))) {
                    drawn.push(match format.bits() {
                        8 => of(row, k),
                        _ => of(row, k) | of(row, k + 4) << 4,
                    });
                }
            }
            (1..=STRIP).for_each(|row| drawn.extend(stored(format, row as f32)));
        }
        assert_eq!(strip, drawn, "{format:?}");
        assert_eq!(strip.len() * 8, STRIP * width * format.bits() + 2 * STRIP * 16, "{format:?}");
    }
}

/// Codes and scales of somebody else, also those that packing floats would not choose: −128, halves below
/// 2⁻¹⁴, negative ones.
#[test]
fn codes_that_are_given_stay_what_they_are() {
    let scales = [0x0001u16, 0x03ff, 0x8200, 0x3c00, 0xbc01, 0x7bff, 0x8000, 0x0000].map(f16::from_bits);
    for (format, rows, width) in
        [StripFormat::Q8_0, StripFormat::Q4_0].iter().flat_map(|&f| [(f, 32, 32), (f, 5, 96), (f, 31, 640)])
    {
        let span = 1 << format.bits();
        let codes: Vec<i8> =
            (0..rows * width).map(|at| ((at * 37 + at / 7) as i32 % span - format.zero()) as i8).collect();
        let scales: Vec<f16> = (0..rows * width / 32).map(|at| scales[at % scales.len()]).collect();
        let mut strip = vec![DIRT; format.strip_bytes(width)];
        pack_codes(format, &codes, &scales, width, &mut strip);
        let found = unpacked(format, &strip, STRIP, width);
        for (at, (&code, found)) in codes.iter().zip(&found).enumerate() {
            let expected = f32::from(code) * scales[at / 32].to_f32();
            assert_eq!(found.to_bits(), expected.to_bits(), "{format:?}, {rows} rows of {width}, {at}");
        }
        assert!(found[rows * width..].iter().all(|value| value.to_bits() == 0), "missing rows");
        // Products read the same bytes that packing the values writes, where it finds these scales.
        let plain = vec![f16::ONE; scales.len()];
        let mut ends: Vec<i8> = codes.iter().map(|&code| code.max(least(format) as i8)).collect();
        ends.chunks_mut(32).for_each(|block| block[0] = least(format) as i8);
        pack_codes(format, &ends, &plain, width, &mut strip);
        let floats: Vec<f32> = ends.iter().map(|&code| f32::from(code)).collect();
        assert!(strip == packed(format, &floats, width), "{format:?}, {rows} rows of {width}");
    }
}

#[test]
fn rows_are_copied_with_every_bit() {
    for format in CODES {
        let (rows, width) = (70, 100);
        let weights: Vec<f32> = (0..rows * width).map(|at| (at as f32 * 1.7).sin()).collect();
        let strips: Vec<_> =
            weights.chunks(STRIP * width).flat_map(|rows| packed(format, rows, width)).collect();
        let all: Vec<f32> =
            weights.chunks(STRIP * width).flat_map(|rows| coded(format, rows, width)).collect();
        let wanted = [69, 0, 31, 32, 5, 5];
        let mut strip = vec![DIRT; format.strip_bytes(width)];
        copy_rows(format, &strips, &wanted, &mut strip);
        let found = unpacked(format, &strip, STRIP, width);
        for (place, row) in wanted.into_iter().enumerate() {
            assert!(found[place * width..][..width] == all[row * width..][..width], "{format:?} row {row}");
        }
        assert!(found[wanted.len() * width..].iter().all(|value| value.to_bits() == 0), "{format:?}");
    }
}

#[test]
fn bytes_are_counted_or_are_none() {
    for (format, strip) in CODES.into_iter().zip([2 * 2112, 3 * 576, 3 * 1088, 3 * 576]) {
        assert_eq!(format.strip_bytes(65), strip);
        assert_eq!([0, 1, 32, 33].map(|rows| format.bytes(rows, 65)), [0, 1, 1, 2].map(|n| Some(n * strip)));
        assert_eq!(format.bytes(usize::MAX, usize::MAX), None);
        assert_eq!(format.bytes(usize::MAX, 1 << 40), None);
    }
}

#[test]
fn what_is_no_strip_is_refused() {
    let fails = |call: &dyn Fn()| std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).is_err();
    for format in CODES {
        let bytes = format.strip_bytes(10);
        for (rows, width, bytes) in
            [(33 * 10, 10, bytes), (15, 10, bytes), (20, 10, bytes - 1), (20, 10, bytes + 1)]
        {
            let mut values = vec![0.0; rows];
            assert!(fails(&|| pack(format, &values, width, &mut vec![0; bytes])), "{rows} values by {width}");
            let values = std::cell::RefCell::new(&mut values);
            assert!(fails(&|| unpack(format, &vec![0; bytes], width, &mut values.borrow_mut())), "{rows}");
        }
    }
}
