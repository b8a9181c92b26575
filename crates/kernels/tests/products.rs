//! Every table's products are what their formulas say, in `f64`: in every format, on odd sizes, at the
//! extremes.

use offramp_kernels::strips::{BlockQuantizer, STRIP, StripFactors, StripFormat, pack, unpack};
use offramp_kernels::{ColumnsMut, RowFactors, Table, available, bf16, f16};
use proptest::prelude::*;

const CODES: [StripFormat; 4] = StripFormat::ALL;

/// Widths around every lane count, block and tile edge.
fn width() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..140, Just(255), Just(513), Just(1030)]
}

/// −1 to 1.
fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

fn product_f32(table: &Table, x: &[f32], weight: &[f32], in_features: usize) -> Vec<f32> {
    let rows = weight.len() / in_features;
    let mut out = vec![f32::NAN; x.len() / in_features * rows];
    (table.product)(RowFactors { x, weight, in_features }, ColumnsMut::new(&mut out, rows));
    out
}

/// `x` is rounded to `bf16` here.
fn product_bf16(table: &Table, x: &[f32], weight: &[bf16], in_features: usize) -> Vec<f32> {
    let rows = weight.len() / in_features;
    let mut operand = vec![bf16::ZERO; (table.operand_len)(x.len() / in_features, in_features)];
    (table.operand_bf16)(x, in_features, x.len() / in_features, &mut operand);
    let mut out = vec![f32::NAN; x.len() / in_features * rows];
    (table.product_bf16)(RowFactors { x: &operand, weight, in_features }, ColumnsMut::new(&mut out, rows));
    out
}

/// The sum of the terms must be `got`, to `roundings` of the size of the terms.
#[track_caller]
fn check(what: &str, got: f32, terms: impl Iterator<Item = f64>, roundings: f64) {
    let (sum, size) = terms.fold((0.0, 0.0), |(sum, size): (f64, f64), term| (sum + term, size + term.abs()));
    let bound = roundings * 2f64.powi(-24) * size;
    let error = (f64::from(got) - sum).abs();
    assert!(error <= bound, "{what}: {got} instead of {sum}, off by {error:e} of {bound:e}");
}

/// Checks all elements of a product of floats; no lane adds up more than every eighth term.
fn check_rows(what: &str, out: &[f32], x: &[f32], weight: &[f32], k: usize) {
    let elements = x.chunks(k).flat_map(|x| weight.chunks(k).map(move |weight| (x, weight)));
    assert_eq!(out.len(), elements.clone().count(), "{what}");
    for (&got, (x, weight)) in out.iter().zip(elements) {
        let terms = x.iter().zip(weight).map(|(&x, &w)| f64::from(x) * f64::from(w));
        check(what, got, terms, k as f64 / 4.0 + 8.0);
    }
}

/// RowFactors packed as strips.
fn strips_of(format: StripFormat, weight: &[f32], in_features: usize) -> Vec<u8> {
    let rows = weight.len() / in_features;
    let mut strips = vec![0xa5; format.bytes(rows, in_features).expect("it fits")];
    let each = strips.chunks_mut(format.strip_bytes(in_features)).zip(weight.chunks(STRIP * in_features));
    each.for_each(|(strip, rows)| pack(format, rows, in_features, strip));
    strips
}

/// A token in int8, as `strips` says it becomes: codes without padding, and a scale for each block.
fn quantized(format: StripFormat, x: &[f32]) -> (Vec<f64>, Vec<f32>) {
    let (mut whole, mut scales) = (Vec::new(), Vec::new());
    for block in x.chunks(format.block()) {
        let largest = block.iter().fold(0f32, |most, x| most.max(x.abs()));
        let inverse = if largest > 0.0 { 127.0 / largest } else { 0.0 };
        whole.extend(block.iter().map(|x| f64::from((x * inverse).round_ties_even())));
        scales.push(largest / 127.0);
    }
    (whole, scales)
}

/// Multiplies strips, and checks every element: blocks are summed exactly, so that only a rounding for each
/// block and its scale is allowed.
#[track_caller]
fn check_strips(format: StripFormat, x: &[f32], strips: &[u8], rows: usize, k: usize) {
    let (tokens, bytes, blocks) = (x.len() / k, format.strip_bytes(k), format.blocks(k));
    let mut weight = vec![0.0; rows * k];
    strips.chunks(bytes).zip(weight.chunks_mut(STRIP * k)).for_each(|(s, w)| unpack(format, s, k, w));
    for table in available() {
        let mut quantizer = BlockQuantizer::default();
        quantizer.quantize(table, format, x, k);
        let mut out = vec![f32::NAN; tokens * rows];
        let factors = StripFactors { format, x: quantizer.tokens(), weight: strips };
        (table.product_strips)(factors, ColumnsMut::new(&mut out, rows));
        for (x, out) in x.chunks(k).zip(out.chunks(rows)) {
            let (row, scales) = quantized(format, x);
            for (r, (&got, weight)) in out.iter().zip(weight.chunks(k)).enumerate() {
                let blocks_of = row.chunks(format.block()).zip(weight.chunks(format.block())).zip(&scales);
                let terms = blocks_of.map(|((x, w), &scale)| {
                    let sum: f64 = x.iter().zip(w).map(|(&x, &w)| x * f64::from(w)).sum();
                    sum * f64::from(scale)
                });
                let what = format!("{} {format:?} row {r} of {rows}, {tokens} tokens, {k} wide", table.name);
                check(&what, got, terms, blocks as f64 + 3.0);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn floats((tokens, rows, k) in (1usize..=40, 1usize..80, width()), seed in any::<u32>()) {
        let (x, weight) = (numbers(tokens * k, seed), numbers(rows * k, !seed));
        let narrow = |x: &[f32]| x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
        let wide = |x: &[bf16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
        let (x16, weight16) = (narrow(&x), narrow(&weight));
        for table in available() {
            let what = format!("{} {tokens} tokens, {rows} rows of {k}", table.name);
            check_rows(&what, &product_f32(table, &x, &weight, k), &x, &weight, k);
            let out = product_bf16(table, &x, &weight16, k);
            check_rows(&format!("bf16 {what}"), &out, &wide(&x16), &wide(&weight16), k);
        }
    }

    #[test]
    fn strips((tokens, rows, k) in (1usize..=40, 1usize..80, width()), seed in any::<u32>()) {
        let (x, weight) = (numbers(tokens * k, seed), numbers(rows * k, !seed));
        for format in CODES {
            check_strips(format, &x, &strips_of(format, &weight, k), rows, k);
        }
    }

    /// What no packing would write, a file may hold.
    #[test]
    fn strips_of_any_bytes((tokens, rows, k) in (1usize..9, 1usize..70, width()), seed in any::<u32>()) {
        let x = numbers(tokens * k, seed);
        for format in CODES {
            let bytes = numbers(format.bytes(rows, k).expect("it fits"), !seed).iter().map(|n| n.to_bits() as u8).collect();
            check_strips(format, &x, &with_scales(format, bytes, 0.75), rows, k);
        }
    }
}

/// StripFactors, all of whose scales are replaced.
fn with_scales(format: StripFormat, mut strips: Vec<u8>, scale: f32) -> Vec<u8> {
    for block in strips.chunks_mut(format.strip_bytes(format.block())) {
        let scales = block.len() - 2 * STRIP;
        let scale = match format.has_halves() {
            true => f16::from_f32(scale).to_le_bytes(),
            false => bf16::from_f32(scale).to_le_bytes(),
        };
        block[scales..].copy_from_slice(&scale.repeat(STRIP));
    }
    strips
}

/// A half below 2⁻¹⁴ is no zero, the largest is finite, and a scale may be negative.
#[test]
fn halves_of_every_kind_are_multiplied_exactly() {
    let (rows, k) = (37, 130);
    let x = numbers(3 * k, 4);
    for format in CODES.into_iter().filter(|format| format.has_halves()) {
        let bytes = numbers(format.bytes(rows, k).expect("it fits"), 5);
        let bytes: Vec<u8> = bytes.iter().map(|n| n.to_bits() as u8).collect();
        for bits in [0x0001, 0x8001, 0x03ff, 0x0400, 0x3555, 0xbc01, 0x7bff, 0xfbff, 0x0000, 0x8000] {
            let strips = with_scales(format, bytes.clone(), f16::from_bits(bits).to_f32());
            check_strips(format, &x, &strips, rows, k);
        }
    }
}

/// 64 products of 127 by 127 do not fit 16 bits, nor do two of 255 by 127.
#[test]
fn the_largest_codes_do_not_overflow() {
    let (rows, k) = (33, 4096);
    let plus = |_| 127.0;
    let alternating = |i: usize| if i.is_multiple_of(2) { 127.0 } else { -127.0 };
    let pairs = |i: usize| if i % 4 < 2 { 127.0 } else { -127.0 };
    let patterns: [&dyn Fn(usize) -> f32; 3] = [&plus, &alternating, &pairs];
    for pattern in patterns {
        let x: Vec<f32> = (0..k).map(pattern).collect();
        let x = [x.clone(), x.iter().map(|x| -x).collect(), x.repeat(5)].concat();
        for format in CODES {
            for byte in [0x00, 0x01, 0x0f, 0x7f, 0x80, 0xf0, 0xff] {
                let strips = vec![byte; format.bytes(rows, k).expect("it fits")];
                check_strips(format, &x, &with_scales(format, strips, 1.0), rows, k);
            }
            let weight: Vec<f32> = (0..rows * k).map(pattern).collect();
            check_strips(format, &x, &strips_of(format, &weight, k), rows, k);
        }
    }
}

#[test]
fn what_is_no_number_reaches_its_token_and_no_other() {
    let (rows, k) = (37, 130);
    let weight = numbers(rows * k, 1);
    let narrow: Vec<bf16> = weight.iter().map(|&w| bf16::from_f32(w)).collect();
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for place in [0, 63, 64, 129] {
            let mut x = numbers(3 * k, 2);
            x[k + place] = bad;
            for table in available() {
                let mut outs = vec![product_f32(table, &x, &weight, k), product_bf16(table, &x, &narrow, k)];
                for format in CODES {
                    let strips = strips_of(format, &weight, k);
                    let mut quantizer = BlockQuantizer::default();
                    quantizer.quantize(table, format, &x, k);
                    let mut out = vec![0.0; 3 * rows];
                    let factors = StripFactors { format, x: quantizer.tokens(), weight: &strips };
                    (table.product_strips)(factors, ColumnsMut::new(&mut out, rows));
                    outs.push(out);
                }
                for (format, out) in outs.iter().enumerate() {
                    let what = format!("{} format {format}, {bad} at {place}", table.name);
                    let hidden = out[rows..2 * rows].iter().any(|x| x.is_finite());
                    let spread = out[..rows].iter().chain(&out[2 * rows..]).any(|x| !x.is_finite());
                    assert!(!hidden && !spread, "{what}: hidden {hidden}, spread {spread}");
                }
            }
        }
    }
}

/// A message for each shape that does not fit; every table checks before it reads.
#[test]
fn factors_that_do_not_fit_are_refused() {
    let says = |expected: &str, call: &dyn Fn()| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).expect_err(expected);
        let message = panic.downcast_ref::<String>().map(String::as_str);
        let message = message.or(panic.downcast_ref::<&str>().copied()).expect("a message");
        assert!(message.contains(expected), "{message}");
    };
    for table in available() {
        let mut out = [0.0; 2];
        let out = std::cell::RefCell::new(&mut out[..]);
        let call = |x: usize, weight: usize, in_features: usize| {
            let (x, weight) = (&[0.0; 20][..x], &[0.0; 20][..weight]);
            (table.product)(RowFactors { x, weight, in_features }, ColumnsMut::new(&mut out.borrow_mut(), 2));
        };
        call(8, 16, 8);
        says("weight is [rows, 8]", &|| call(8, 15, 8));
        says("weight is [rows, 8]", &|| call(8, 17, 8));
        says("x is [tokens, 8]", &|| call(7, 16, 8));
        says("x is [tokens, 8]", &|| call(16, 16, 8));
        says("a product over no features", &|| call(0, 0, 0));
        for format in CODES {
            let mut quantizer = BlockQuantizer::default();
            quantizer.quantize(table, format, &[1.0; 200], 100);
            let bytes = format.bytes(2, 100).expect("it fits");
            let call = |format, bytes, rows| {
                let mut out = vec![0.0; 2 * rows];
                let factors = StripFactors { format, x: quantizer.tokens(), weight: &[0; 20_000][..bytes] };
                (table.product_strips)(factors, ColumnsMut::new(&mut out, rows));
            };
            call(format, bytes, 2);
            says("strips for 2 rows", &|| call(format, bytes - 1, 2));
            says("strips for 33 rows", &|| call(format, bytes, 33));
            // Formats of other blocks, or of another zero.
            let input = |format: StripFormat| (format.block(), format.zero());
            for other in CODES.into_iter().filter(|&other| input(other) != input(format)) {
                let blocks = format.blocks(100) * other.strip_bytes(other.block());
                says("tokens in blocks of", &|| call(other, blocks, 2));
            }
        }
    }
}
