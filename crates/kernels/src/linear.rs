//! The engine's products, over its threads: one input by one or several weight matrices.

use crate::aligned::Aligned;
use crate::columns::{Claims, ColumnsMut};
use crate::dispatch::active;
use crate::factors::{RowFactors, StripFactors, TernaryFactors};
use crate::strips::layout::INPUTS;
use crate::strips::{BlockQuantizer, STRIP, StripFormat};
use crate::table::{TILE_TOKENS, Table};
use crate::ternary::{self, InputQuantization, RowQuantizer};
use crate::{pool, team};
use half::bf16;

/// Bytes of weights below which a thread is not worth calling. Calling one takes about a microsecond.
const WORTH_A_THREAD: usize = 32 << 10;
/// Values of the input below which it is not worth calling threads to convert them.
const CONVERTED_ALONE: usize = 32 << 10;
/// Bytes of weights that a thread takes at a time: enough for a long stream, and less than its second-level
/// cache.
const CHUNK: usize = 256 << 10;

/// More tokens than this are many. They are multiplied by a block of rows that stays in the second-level
/// cache.
const MANY: usize = 16;
/// Rows of such a block.
const BLOCK: usize = 64;

/// A weight matrix `[rows, in_features]` as it lies in memory.
#[derive(Clone, Copy, Debug)]
pub enum Weight<'a> {
    /// Row after row.
    F32(&'a [f32]),
    /// Row after row; the input is rounded to `bf16` too, sums are `f32`.
    Bf16(&'a [bf16]),
    /// Strip after strip; the input is quantized to int8.
    Strips(StripFormat, &'a [u8]),
    /// Strip after strip of two-bit codes; the input is quantized row by row.
    Ternary(TernaryWeight<'a>),
}

/// A ternary matrix and what it is multiplied by.
#[derive(Clone, Copy, Debug)]
pub struct TernaryWeight<'a> {
    /// Its strips; see [`ternary`](crate::ternary).
    pub strips: &'a [u8],
    /// The scale of the matrix: what a code of 1 stands for.
    pub step: f32,
    /// How the input is quantized.
    pub input: InputQuantization,
}

impl Weight<'_> {
    /// Whether both need the input in the same format.
    fn shares_input(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::F32(_), Self::F32(_)) | (Self::Bf16(_), Self::Bf16(_)) => true,
            (Self::Strips(format, _), Self::Strips(other, _)) => format.input() == other.input(),
            (Self::Ternary(weight), Self::Ternary(other)) => weight.input == other.input,
            _ => false,
        }
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::F32(weight) => size_of_val(*weight),
            Self::Bf16(weight) => size_of_val(*weight),
            Self::Strips(_, weight) => weight.len(),
            Self::Ternary(weight) => weight.strips.len(),
        }
    }
}

/// A weight matrix, and where its product goes.
#[derive(Debug)]
pub struct Job<'a> {
    /// `[rows, in_features]`
    pub weight: Weight<'a>,
    /// `[tokens, rows]`
    pub out: &'a mut [f32],
}

/// The input in each format that weights need, in buffers that are kept from call to call.
#[derive(Clone, Debug, Default)]
pub struct Operand {
    f32: Aligned<f32>, // a copy of many tokens, which are read again and again
    bf16: Aligned<bf16>,
    strips: [BlockQuantizer; INPUTS],
    ternary: [RowQuantizer; InputQuantization::ALL.len()],
}

impl Operand {
    fn prepare(&mut self, table: &Table, weight: Weight<'_>, x: &[f32], in_features: usize) {
        let threads = if x.len() < CONVERTED_ALONE { 1 } else { pool::threads() };
        match weight {
            Weight::F32(_) => {
                let whole = if x.len() / in_features > MANY { x } else { &[] };
                let parts = self.f32.resize(whole.len()).chunks_mut(CONVERTED_ALONE);
                team::share(threads, whole.chunks(CONVERTED_ALONE).zip(parts), |(x, out)| {
                    out.copy_from_slice(x)
                });
            }
            Weight::Bf16(_) => {
                let (tokens, group) = (x.len() / in_features, TILE_TOKENS.min(x.len() / in_features));
                let out = self.bf16.resize((table.operand_len)(tokens, in_features));
                let parts = out.chunks_mut((table.operand_len)(group, in_features));
                team::share(threads, x.chunks(group * in_features).zip(parts), |(x, out)| {
                    (table.operand_bf16)(x, in_features, tokens, out);
                });
            }
            Weight::Strips(format, _) => {
                self.strips[format.input()].quantize_on(threads, table, format, x, in_features)
            }
            Weight::Ternary(TernaryWeight { input, .. }) => {
                self.ternary[input.index()].quantize_on(threads, table, input, x, in_features);
            }
        }
    }
}

/// Multiplies `x` `[tokens, in_features]` by the matrices of up to four jobs, with the [active] table on
/// all threads that are worth calling.
///
/// `out[t, r] = Σ_k x[t, k] · weight[r, k]`; an element's bits depend on its row and its token alone.
///
/// # Panics
/// If the slices do not have these shapes.
pub fn linear(x: &[f32], in_features: usize, operand: &mut Operand, jobs: &mut [Job<'_>]) {
    linear_with(active(), x, in_features, operand, jobs);
}

/// As [`linear`], with a given table.
///
/// # Panics
/// As [`linear`].
pub fn linear_with(
    table: &Table,
    x: &[f32],
    in_features: usize,
    operand: &mut Operand,
    jobs: &mut [Job<'_>],
) {
    assert!(in_features > 0 && x.len().is_multiple_of(in_features), "x is [tokens, {in_features}]");
    let tokens = x.len() / in_features;
    if tokens == 0 {
        return;
    }
    for (j, job) in jobs.iter().enumerate() {
        if !jobs[..j].iter().any(|before| before.weight.shares_input(&job.weight)) {
            operand.prepare(table, job.weight, x, in_features);
        }
    }
    let bytes: usize = jobs.iter().map(|job| job.weight.bytes()).sum();
    let threads = (bytes.saturating_mul(tokens.div_ceil(4)) / WORTH_A_THREAD).clamp(1, pool::threads());
    let factors = PreparedInput { table, x, in_features, operand };
    let mut jobs = jobs.iter_mut();
    let shared: [_; 4] = std::array::from_fn(|_| jobs.next().map(|job| Shared::new(job, tokens, threads)));
    assert!(jobs.next().is_none(), "at most four matrices at once");
    team::together(threads, &|thread| {
        for job in shared.iter().flatten() {
            while let Some((first, out)) = job.claims.claim(thread) {
                factors.product(job.weight, first, out);
            }
        }
    });
}

/// A job whose rows threads claim.
struct Shared<'a> {
    weight: Weight<'a>,
    claims: Claims<'a>,
}

impl<'a> Shared<'a> {
    fn new(job: &'a mut Job<'_>, tokens: usize, threads: usize) -> Self {
        let rows = job.out.len() / tokens;
        let unit = match job.weight {
            Weight::Strips(..) | Weight::Ternary(_) => STRIP,
            _ if tokens > MANY => BLOCK,
            _ => 4,
        };
        let chunk = rows * CHUNK / job.weight.bytes().max(1);
        let out = ColumnsMut::new(job.out, rows);
        Self { weight: job.weight, claims: Claims::new(out, unit, chunk, threads) }
    }
}

/// The input of a product, in all formats that its jobs need.
struct PreparedInput<'a> {
    table: &'a Table,
    x: &'a [f32],
    in_features: usize,
    operand: &'a Operand,
}

impl PreparedInput<'_> {
    /// The rows of `weight` from `first` on, as many as `out` has columns.
    fn product(&self, weight: Weight<'_>, first: usize, out: ColumnsMut<'_>) {
        let Self { table, x, in_features, operand } = *self;
        let values = first * in_features..(first + out.columns()) * in_features;
        match weight {
            Weight::F32(weight) => {
                let x = if operand.f32.values().len() == x.len() { operand.f32.values() } else { x };
                (table.product)(RowFactors { x, weight: &weight[values], in_features }, out);
            }
            Weight::Bf16(weight) => {
                (table.product_bf16)(
                    RowFactors { x: operand.bf16.values(), weight: &weight[values], in_features },
                    out,
                );
            }
            Weight::Strips(format, weight) => {
                let strip = format.strip_bytes(in_features);
                let weight = &weight[first / STRIP * strip..][..out.columns().div_ceil(STRIP) * strip];
                let x = operand.strips[format.input()].tokens();
                (table.product_strips)(StripFactors { format, x, weight }, out);
            }
            Weight::Ternary(TernaryWeight { strips, step, input }) => {
                let strip = ternary::strip_bytes(in_features);
                let weight = &strips[first / STRIP * strip..][..out.columns().div_ceil(STRIP) * strip];
                let x = operand.ternary[input.index()].tokens();
                (table.product_ternary)(TernaryFactors { x, weight, step }, out);
            }
        }
    }
}
