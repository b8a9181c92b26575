//! Invariant 4: a token's result does not depend on how many tokens share the call, on the cut of the rows,
//! nor on threads.

use offramp_kernels::strips::{BlockQuantizer, STRIP, StripFactors, StripFormat, pack};
use offramp_kernels::ternary::{self, InputQuantization, TernaryFactors};
use offramp_kernels::{
    ColumnsMut, Job, Operand, RowFactors, Table, TernaryWeight, Weight, available, bf16, linear_with, pool,
};
use std::ops::Range;

fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            // Many magnitudes, so that any other order of summation would show.
            ((state >> 8) as f32 / (1 << 23) as f32 - 1.0) * 2f32.powi((state % 25) as i32 - 12)
        })
        .collect()
}

/// A product's factors in every format.
struct Product {
    rows: usize,
    k: usize,
    x: Vec<f32>,
    f32: Vec<f32>,
    bf16: Vec<bf16>,
    strips: [Vec<u8>; StripFormat::ALL.len()],
    ternary: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Format {
    F32,
    Bf16,
    /// With its place in `StripFormat::ALL`.
    Strips(usize),
    /// With the input's place in `InputQuantization::ALL`.
    Ternary(usize),
}

/// Rotated inputs are of other widths: see `rotated_inputs_too`.
const FORMATS: [Format; 8] = [
    Format::F32,
    Format::Bf16,
    Format::Strips(0),
    Format::Strips(1),
    Format::Ternary(0),
    Format::Ternary(2),
    Format::Strips(2),
    Format::Strips(3),
];

impl Product {
    fn new(tokens: usize, rows: usize, k: usize) -> Self {
        pool::set_threads(3).expect("all tests of this process want as many");
        let narrow = |x: &[f32]| x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>();
        let (x, weight) = (numbers(tokens * k, 1), numbers(rows * k, 2));
        let strips = |format: StripFormat| {
            let mut strips = vec![0; format.bytes(rows, k).expect("it fits")];
            let each = strips.chunks_mut(format.strip_bytes(k)).zip(weight.chunks(STRIP * k));
            each.for_each(|(strip, rows)| pack(format, rows, k, strip));
            strips
        };
        let strips = StripFormat::ALL.map(strips);
        let codes: Vec<i8> = weight.iter().map(|w| (w.to_bits() % 3) as i8 - 1).collect();
        let mut ternary = vec![0; ternary::bytes(rows, k).expect("it fits")];
        let each = ternary.chunks_mut(ternary::strip_bytes(k)).zip(codes.chunks(STRIP * k));
        each.for_each(|(strip, rows)| ternary::pack(rows, k, strip));
        Self { rows, k, bf16: narrow(&weight), x, f32: weight, strips, ternary }
    }

    fn weight(&self, format: Format) -> Weight<'_> {
        match format {
            Format::F32 => Weight::F32(&self.f32),
            Format::Bf16 => Weight::Bf16(&self.bf16),
            Format::Strips(place) => Weight::Strips(StripFormat::ALL[place], &self.strips[place]),
            Format::Ternary(input) => Weight::Ternary(TernaryWeight {
                strips: &self.ternary,
                step: 0.3,
                input: InputQuantization::ALL[input],
            }),
        }
    }

    /// Some rows by some tokens.
    fn part(&self, table: &Table, format: Format, tokens: Range<usize>, first: usize, out: ColumnsMut<'_>) {
        let in_features = self.k;
        let tokens = tokens.start * in_features..tokens.end * in_features;
        let values = first * in_features..(first + out.columns()) * in_features;
        match self.weight(format) {
            Weight::F32(weight) => {
                (table.product)(RowFactors { x: &self.x[tokens], weight: &weight[values], in_features }, out);
            }
            Weight::Bf16(weight) => {
                let count = tokens.len() / in_features;
                let mut x = vec![bf16::ZERO; (table.operand_len)(count, in_features)];
                (table.operand_bf16)(&self.x[tokens], in_features, count, &mut x);
                (table.product_bf16)(RowFactors { x: &x, weight: &weight[values], in_features }, out);
            }
            Weight::Strips(format, weight) => {
                let bytes = format.strip_bytes(in_features);
                let weight = &weight[first / STRIP * bytes..][..out.columns().div_ceil(STRIP) * bytes];
                let mut quantizer = BlockQuantizer::default();
                quantizer.quantize(table, format, &self.x[tokens], in_features);
                (table.product_strips)(StripFactors { format, x: quantizer.tokens(), weight }, out);
            }
            Weight::Ternary(TernaryWeight { strips, step, input }) => {
                let bytes = ternary::strip_bytes(in_features);
                let weight = &strips[first / STRIP * bytes..][..out.columns().div_ceil(STRIP) * bytes];
                let mut quantizer = ternary::RowQuantizer::default();
                quantizer.quantize(table, input, &self.x[tokens], in_features);
                (table.product_ternary)(TernaryFactors { x: quantizer.tokens(), weight, step }, out);
            }
        }
    }

    /// Everything, `batch` tokens at a time.
    fn whole(&self, table: &Table, format: Format, batch: usize) -> Vec<u32> {
        let tokens = self.x.len() / self.k;
        let mut out = vec![f32::NAN; tokens * self.rows];
        for (call, out) in out.chunks_mut(batch * self.rows).enumerate() {
            let tokens = call * batch..tokens.min((call + 1) * batch);
            self.part(table, format, tokens, 0, ColumnsMut::new(out, self.rows));
        }
        out.into_iter().map(f32::to_bits).collect()
    }
}

/// Odd sizes; more rows than stay in the cache together, and rows longer than a stretch of them.
const SIZES: [(usize, usize); 9] =
    [(1, 1), (3, 7), (4, 16), (9, 33), (33, 100), (40, 257), (70, 130), (135, 64), (9, 1607)];

fn each_table_and_format(check: impl Fn(&'static Table, Format)) {
    available().into_iter().for_each(|table| FORMATS.iter().for_each(|&format| check(table, format)));
}

#[test]
fn every_batch_gives_the_bits_of_one_token() {
    for (rows, k) in SIZES {
        let product = Product::new(40, rows, k);
        each_table_and_format(|table, format| {
            let alone = product.whole(table, format, 1);
            for batch in 2..=40 {
                let what = format!("{} {format:?}, {batch} tokens, {rows} rows of {k}", table.name);
                assert!(product.whole(table, format, batch) == alone, "{what}");
            }
        });
    }
}

#[test]
fn every_cut_of_the_rows_gives_the_same_bits() {
    for (rows, k) in SIZES {
        for tokens in [1, 5, 19] {
            let product = Product::new(tokens, rows, k);
            each_table_and_format(|table, format| {
                let whole = product.whole(table, format, tokens);
                let unit = if matches!(format, Format::F32 | Format::Bf16) { 1 } else { STRIP };
                for cut in (unit..rows).step_by(unit) {
                    let mut out = vec![f32::NAN; tokens * rows];
                    let (low, high) = ColumnsMut::new(&mut out, rows).split_at(cut);
                    product.part(table, format, 0..tokens, cut, high);
                    product.part(table, format, 0..tokens, 0, low);
                    let bits: Vec<u32> = out.iter().map(|x| x.to_bits()).collect();
                    let what = format!("{} {format:?}, {tokens} tokens, row {cut} of {rows}", table.name);
                    assert!(bits == whole, "{what}");
                }
            });
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let sizes = [(1, 1500, 300), (2, 900, 257), (7, 640, 129), (40, 301, 100), (1, 5, 20)];
    let mut operand = Operand::default(); // kept from call to call, as an engine does
    for ((tokens, rows, k), table) in
        sizes.iter().flat_map(|&size| available().into_iter().map(move |t| (size, t)))
    {
        let product = Product::new(tokens, rows, k);
        let shared = [1, 3, 2, 1].map(Format::Strips); // int4, Q4_0 and int4 share their input
        for formats in
            [&FORMATS[..4], &FORMATS[2..6], &FORMATS[4..], &shared, &[Format::F32], &[Format::Bf16], &[]]
        {
            let mut outs = vec![vec![f32::NAN; tokens * rows]; formats.len()];
            let jobs = formats.iter().zip(&mut outs);
            let mut jobs: Vec<_> =
                jobs.map(|(&format, out)| Job { weight: product.weight(format), out }).collect();
            linear_with(table, &product.x, k, &mut operand, &mut jobs);
            for (&format, out) in formats.iter().zip(outs) {
                let bits: Vec<u32> = out.into_iter().map(f32::to_bits).collect();
                let what = format!("{} {format:?} of {formats:?}, {tokens} tokens, {rows} rows", table.name);
                assert!(bits == product.whole(table, format, tokens), "{what}");
            }
        }
    }
}

#[test]
fn rotated_inputs_too() {
    for (tokens, rows, k) in [(21, 40, 1), (40, 70, 128), (3, 900, 512)] {
        let product = Product::new(tokens, rows, k);
        for format in [Format::Ternary(1), Format::Ternary(3)] {
            for table in available() {
                let alone = product.whole(table, format, 1);
                for batch in [2, 7, 8, 9, 16, 17, 33, 40] {
                    let what = format!("{} {format:?}, {batch} tokens, {rows} rows of {k}", table.name);
                    assert!(product.whole(table, format, batch) == alone, "{what}");
                }
                let mut out = vec![f32::NAN; tokens * rows];
                let job = Job { weight: product.weight(format), out: &mut out };
                linear_with(table, &product.x, k, &mut Operand::default(), &mut [job]);
                let bits: Vec<u32> = out.into_iter().map(f32::to_bits).collect();
                assert!(bits == alone, "{} {format:?}, threads", table.name);
            }
        }
    }
}

/// Whole numbers leave nothing to rounding: every table gives the very same bits.
#[test]
fn tables_agree_on_ternary_bits() {
    for (rows, k) in SIZES {
        let product = Product::new(19, rows, k);
        for format in [Format::Ternary(0), Format::Ternary(2)] {
            let reference = product.whole(available()[0], format, 19);
            for table in available() {
                assert!(product.whole(table, format, 19) == reference, "{} {format:?}", table.name);
            }
        }
    }
}
