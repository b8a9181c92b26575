//! The generic bodies at shapes of vectors that this processor may lack: lanes in plain Rust take the place
//! of AVX-512's, AVX2's and NEON's registers, and every element is compared with its formula.
#![allow(unsafe_code, reason = "the trait's functions are unsafe to call, also in plain Rust")]
#![allow(unsafe_op_in_unsafe_fn, reason = "every function makes the traits' one demand of its caller")]

use super::vector::{Dot, ROWS, Simd};
use super::{row_format, row_major, strip, ternary};
use crate::columns::ColumnsMut;
use crate::dispatch::available;
use crate::factors::{RowFactors, StripFactors, TernaryFactors};
use crate::strips::{self, BlockQuantizer, STRIP, StripFormat};
use crate::ternary::{InputQuantization, RowQuantizer};
use half::{bf16, f16};

/// `LANES` lanes. With `WIDE` its sums of small codes have 32 bits and it has 32 registers, as AVX-512 and
/// NEON have.
#[derive(Clone, Copy)]
struct Plain<const LANES: usize, const WIDE: bool>;

/// Four bytes, or four signed codes, of each lane.
type Quads<T, const LANES: usize> = [[T; 4]; LANES];

impl<const LANES: usize, const WIDE: bool> Simd for Plain<LANES, WIDE> {
    type F32 = [f32; LANES];
    type I32 = [i32; LANES];
    type Bf16 = [[bf16; 2]; LANES];
    const LANES: usize = LANES;
    const TILE_TOKENS: usize = if WIDE { 6 } else { 3 };
    const WIDENED_TOKENS: usize = if WIDE { 6 } else { 2 };

    unsafe fn splat(x: f32) -> [f32; LANES] {
        [x; LANES]
    }

    unsafe fn load(from: *const f32) -> [f32; LANES] {
        from.cast::<[f32; LANES]>().read_unaligned()
    }

    unsafe fn load_some(from: *const f32, count: usize) -> [f32; LANES] {
        std::array::from_fn(|i| if i < count { *from.add(i) } else { 0.0 })
    }

    unsafe fn store(to: *mut f32, x: [f32; LANES]) {
        to.cast::<[f32; LANES]>().write_unaligned(x);
    }

    unsafe fn mul(a: [f32; LANES], b: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| a[i] * b[i])
    }

    unsafe fn mul_add(a: [f32; LANES], b: [f32; LANES], c: [f32; LANES]) -> [f32; LANES] {
        std::array::from_fn(|i| a[i].mul_add(b[i], c[i]))
    }

    unsafe fn total(mut x: [f32; LANES]) -> f32 {
        let mut width = LANES / 2;
        while width > 0 {
            (0..width).for_each(|i| x[i] += x[i + width]);
            width /= 2;
        }
        x[0]
    }

    unsafe fn totals(rows: [[f32; LANES]; ROWS]) -> [f32; ROWS] {
        rows.map(|row| Self::total(row))
    }

    unsafe fn splat_i32(x: i32) -> [i32; LANES] {
        [x; LANES]
    }

    unsafe fn add_i32(a: [i32; LANES], b: [i32; LANES]) -> [i32; LANES] {
        std::array::from_fn(|i| a[i] + b[i])
    }

    unsafe fn to_f32(x: [i32; LANES]) -> [f32; LANES] {
        x.map(|x| x as f32)
    }

    unsafe fn load_bf16(from: *const bf16) -> [[bf16; 2]; LANES] {
        from.cast::<[[bf16; 2]; LANES]>().read_unaligned()
    }

    unsafe fn load_some_bf16(from: *const bf16, count: usize) -> [[bf16; 2]; LANES] {
        let value = |at: usize| if at < count { *from.add(at) } else { bf16::ZERO };
        std::array::from_fn(|i| [value(2 * i), value(2 * i + 1)])
    }

    unsafe fn even(x: [[bf16; 2]; LANES]) -> [f32; LANES] {
        x.map(|pair| pair[0].to_f32())
    }

    unsafe fn odd(x: [[bf16; 2]; LANES]) -> [f32; LANES] {
        x.map(|pair| pair[1].to_f32())
    }

    unsafe fn load_widened(from: *const bf16) -> [f32; LANES] {
        from.cast::<[bf16; LANES]>().read_unaligned().map(bf16::to_f32)
    }

    unsafe fn load_halves(from: *const f16) -> [f32; LANES] {
        from.cast::<[f16; LANES]>().read_unaligned().map(f16::to_f32)
    }

    unsafe fn prefetch_l1(_: *const u8) {}

    unsafe fn prefetch_l2(_: *const u8) {}
}

impl<const LANES: usize, const WIDE: bool> Dot for Plain<LANES, WIDE> {
    type Stored = Quads<u8, LANES>;
    type Token = Quads<i8, LANES>;
    type Bytes = Quads<u8, LANES>;
    /// Pairs, which must fit 16 bits unless the sums are wide.
    type Small = [[i32; 2]; LANES];
    const STRIP_TOKENS: usize = if WIDE { 6 } else { 4 };
    const TERNARY_TOKENS: usize = if WIDE { 8 } else { 4 };
    const VECTORS_AT_ONCE: usize = 2;
    const SMALL_IS_WIDE: bool = WIDE;
    const TERNARY_AHEAD: usize = 1 << 10;

    unsafe fn load_stored(from: *const u8) -> Quads<u8, LANES> {
        from.cast::<Quads<u8, LANES>>().read_unaligned()
    }

    unsafe fn repeat(from: *const i8) -> Quads<i8, LANES> {
        [from.cast::<[i8; 4]>().read_unaligned(); LANES]
    }

    unsafe fn bits(stored: Quads<u8, LANES>, shift: usize, mask: u8) -> Quads<u8, LANES> {
        stored.map(|quad| quad.map(|byte| byte >> shift & mask))
    }

    unsafe fn open(sum: [i32; LANES]) -> [[i32; 2]; LANES] {
        if WIDE { sum.map(|sum| [sum, 0]) } else { [[0; 2]; LANES] }
    }

    unsafe fn dot_small(
        sum: [[i32; 2]; LANES],
        codes: Quads<u8, LANES>,
        token: Quads<i8, LANES>,
    ) -> [[i32; 2]; LANES] {
        let product = |i: usize, j: usize| i32::from(codes[i][j]) * i32::from(token[i][j]);
        let sum: [[i32; 2]; LANES] =
            std::array::from_fn(|i| [0, 1].map(|p| sum[i][p] + product(i, 2 * p) + product(i, 2 * p + 1)));
        let fits = sum.iter().flatten().all(|&pair| i16::try_from(pair).is_ok());
        assert!(WIDE || fits, "a pair of sums leaves 16 bits: {sum:?}");
        sum
    }

    unsafe fn close(sum: [i32; LANES], small: [[i32; 2]; LANES]) -> [i32; LANES] {
        std::array::from_fn(|i| small[i][0] + small[i][1] + if WIDE { 0 } else { sum[i] })
    }

    unsafe fn bytes(stored: Quads<u8, LANES>) -> Quads<u8, LANES> {
        stored
    }

    unsafe fn start_bytes(offset: i32) -> [i32; LANES] {
        [if WIDE { offset } else { 0 }; LANES]
    }

    unsafe fn dot_bytes(sum: [i32; LANES], codes: Quads<u8, LANES>, token: Quads<i8, LANES>) -> [i32; LANES] {
        let zero = if WIDE { 0 } else { 128 };
        std::array::from_fn(|i| {
            (0..4).fold(sum[i], |sum, j| sum + (i32::from(codes[i][j]) - zero) * i32::from(token[i][j]))
        })
    }
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

/// Around the edges of strips, blocks and tiles.
const SIZES: [(usize, usize); 5] = [(1, 1), (31, 33), (33, 64), (70, 130), (40, 257)];

/// The tables' own products, of which the generic bodies have the bits where both fuse.
#[test]
fn strips_are_those_of_the_reference_at_every_shape_of_vectors() {
    let table = available()[0];
    for ((rows, k), format) in
        SIZES.into_iter().flat_map(|size| StripFormat::ALL.map(|format| (size, format)))
    {
        let weight = numbers(rows * k, 1);
        let mut packed = vec![0; format.bytes(rows, k).expect("it fits")];
        let each = packed.chunks_mut(format.strip_bytes(k)).zip(weight.chunks(STRIP * k));
        each.for_each(|(strip, rows)| strips::pack(format, rows, k, strip));
        for tokens in (1..=9).chain([17]) {
            let mut quantizer = BlockQuantizer::default();
            quantizer.quantize(table, format, &numbers(tokens * k, 2), k);
            let factors = StripFactors { format, x: quantizer.tokens(), weight: &packed };
            let product = |by: &dyn Fn(StripFactors<'_>, ColumnsMut<'_>)| {
                let mut out = vec![f32::NAN; tokens * rows];
                by(factors, ColumnsMut::new(&mut out, rows));
                out
            };
            // SAFETY: plain Rust needs no instructions.
            let found = unsafe {
                [
                    product(&|f, out| strip::product::<Plain<16, true>, 2>(f, out)),
                    product(&|f, out| strip::product::<Plain<8, false>, 4>(f, out)),
                    product(&|f, out| strip::product::<Plain<4, true>, 8>(f, out)),
                ]
            };
            let expected = product(&|f, out| strips::portable_strips::product_strips::<true>(f, out));
            for found in found {
                assert!(found == expected, "{format:?}, {tokens} tokens, {rows} rows of {k}");
            }
        }
    }
}

#[test]
fn ternary_strips_are_those_of_the_reference_at_every_shape_of_vectors() {
    let table = available()[0];
    for ((rows, k), input) in SIZES.into_iter().flat_map(|size| [(size, 0), (size, 2)]) {
        let codes: Vec<i8> = numbers(rows * k, 3).iter().map(|w| (w.to_bits() % 3) as i8 - 1).collect();
        let mut packed = vec![0; crate::ternary::bytes(rows, k).expect("it fits")];
        let each = packed.chunks_mut(crate::ternary::strip_bytes(k)).zip(codes.chunks(STRIP * k));
        each.for_each(|(strip, rows)| crate::ternary::pack(rows, k, strip));
        for tokens in (1..=9).chain([17]) {
            let mut quantizer = RowQuantizer::default();
            quantizer.quantize(table, InputQuantization::ALL[input], &numbers(tokens * k, 4), k);
            let factors = TernaryFactors { x: quantizer.tokens(), weight: &packed, step: 0.3 };
            let product = |by: &dyn Fn(TernaryFactors<'_>, ColumnsMut<'_>)| {
                let mut out = vec![f32::NAN; tokens * rows];
                by(factors, ColumnsMut::new(&mut out, rows));
                out
            };
            // SAFETY: plain Rust needs no instructions.
            let found = unsafe {
                [
                    product(&|f, out| ternary::product::<Plain<16, true>, 2>(f, out)),
                    product(&|f, out| ternary::product::<Plain<8, false>, 4>(f, out)),
                    product(&|f, out| ternary::product::<Plain<4, true>, 8>(f, out)),
                ]
            };
            let expected = product(&|f, out| (table.product_ternary)(f, out));
            for found in found {
                assert!(found == expected, "{tokens} tokens, {rows} rows of {k}");
            }
        }
    }
}

/// Lane `i` sums the terms `k ≡ i` in increasing k, of `bf16` the odd ones of a vector first.
fn expected_row<const LANES: usize>(x: &[f32], weight: &[f32], per_lane: usize) -> f32 {
    let mut lanes = [0f32; LANES];
    for start in (0..x.len()).step_by(LANES * per_lane) {
        for place in (0..per_lane).rev() {
            for (i, lane) in lanes.iter_mut().enumerate() {
                let k = start + i * per_lane + place;
                let [x, w] = [x, weight].map(|row| row.get(k).copied().unwrap_or(0.0));
                *lane = w.mul_add(x, *lane);
            }
        }
    }
    // SAFETY: plain Rust needs no instructions.
    unsafe { Plain::<LANES, true>::total(lanes) }
}

fn check_row_major<const LANES: usize, const WIDE: bool>() {
    for (rows, k) in SIZES.into_iter().chain([(9, 1607)]) {
        for tokens in [1, 2, 3, 5, 6, 8, 17, 19] {
            let narrow = |x: Vec<f32>| x.into_iter().map(bf16::from_f32).collect::<Vec<_>>();
            let wide = |x: &[bf16]| x.iter().map(|x| x.to_f32()).collect::<Vec<_>>();
            let (x, weight) = (narrow(numbers(tokens * k, 5)), narrow(numbers(rows * k, 6)));
            let (wide_x, wide_weight) = (wide(&x), wide(&weight));
            let mut out = [vec![f32::NAN; tokens * rows], vec![f32::NAN; tokens * rows]];
            // SAFETY: plain Rust needs no instructions.
            unsafe {
                let [floats, halves] = &mut out;
                let factors = RowFactors { x: &wide_x[..], weight: &wide_weight[..], in_features: k };
                row_major::product::<Plain<LANES, WIDE>, row_format::Floats>(
                    factors,
                    ColumnsMut::new(floats, rows),
                );
                let factors = RowFactors { x: &x[..], weight: &weight[..], in_features: k };
                row_major::product::<Plain<LANES, WIDE>, row_format::WidenedBf16>(
                    factors,
                    ColumnsMut::new(halves, rows),
                );
            }
            for (out, per_lane) in out.iter().zip([1, 2]) {
                for (at, &found) in out.iter().enumerate() {
                    let (x, w) = (&wide_x[at / rows * k..][..k], &wide_weight[at % rows * k..][..k]);
                    let expected = expected_row::<LANES>(x, w, per_lane);
                    assert!(found == expected, "{tokens} tokens, {rows} rows of {k}, element {at}");
                }
            }
        }
    }
}

#[test]
fn row_major_elements_are_summed_in_the_stated_order_at_every_shape_of_vectors() {
    check_row_major::<16, true>();
    check_row_major::<8, false>();
    check_row_major::<4, true>();
}
