//! The one exit head: final norm, LM head and cross-entropy, fused and in chunks of tokens, so that
//! `[tokens, vocab]` is never held.
//!
//! A chunk's logits become their own gradient in place, so that one sweep does the way there and the way
//! back. Memory does not depend on how many exits a step trains: they take turns, and exits with few scored
//! positions share a chunk, because a product with all of the head costs much for few rows.

use super::{Kept, linear, rms_norm};
use crate::profile::{Clock, Op, Way, product};
use offramp_kernels::gemm::{Factors, Values};
use offramp_kernels::rayon::prelude::*;
use offramp_kernels::{active, bf16};

/// Tokens whose logits are held at once, at most.
///
/// Every chunk reads the head's weights twice and adds to all of their gradient: at 50,257 tokens of vocabulary
/// a chunk of 320 spent a tenth of its time on that.
const CHUNK: usize = 1024;
/// Logits held at once, at most (256 MiB), unless one block of rows has more.
const CHUNK_FLOATS: usize = 1 << 26;

/// The weights that every exit shares.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) norm: &'a [f32], // [hidden]
    pub(crate) eps: f32,
    pub(crate) lm_head: &'a [f32], // [vocab, hidden]
    pub(crate) factors: Factors,
    pub(crate) clock: &'a Clock,
}

impl Head<'_> {
    fn hidden(&self) -> usize {
        self.norm.len()
    }

    fn vocab(&self) -> usize {
        self.lm_head.len() / self.hidden()
    }

    fn flops(&self, rows: usize) -> f64 {
        product(rows, self.hidden(), self.vocab())
    }
}

/// Where the gradients of the shared weights go; they are added to.
pub(crate) struct Gradients<'a> {
    pub(crate) norm: &'a mut [f32],    // [hidden]
    pub(crate) lm_head: &'a mut [f32], // [vocab, hidden]
}

/// What is scored: the hidden states of one exit, at which of their positions, and what each one's loss counts.
#[derive(Clone, Copy)]
pub(crate) struct Scored<'a> {
    pub(crate) x: &'a [f32],           // [rows, hidden]
    pub(crate) positions: &'a [usize], // increasing
    pub(crate) scale: f32,
}

/// Room for one chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    rows: usize,
    samples: Vec<usize>, // 0, 1, …: rows of a chunk are samples of one token to the norm
    labels: Vec<u32>,    // [rows]
    relative: Vec<f32>,  // [rows], what a row's loss counts against the heaviest's
    normed: Vec<f32>,    // [rows, hidden]
    d_normed: Vec<f32>,  // [rows, hidden]
    d_x: Vec<f32>,       // [rows, hidden]
    inv_rms: Vec<f32>,   // [rows]
    logits: Vec<f32>,    // [rows, vocab]
    rounded: Vec<bf16>,  // [rows, vocab], the gradient of the logits in `bf16`
    nats: Vec<f64>,      // [rows]
    partial: Vec<f32>,   // [blocks of rows, hidden]
}

/// Bytes that a [`Chunk`] for `tokens` rows takes, with its logits' gradient `rounded` or not.
pub(crate) fn chunk_bytes(tokens: u128, [hidden, vocab]: [u128; 2], rounded: bool) -> u128 {
    let block = super::BLOCK as u128;
    let fitting = (CHUNK_FLOATS as u128 / vocab).max(block) / block * block;
    let rows = tokens.min(fitting).min(CHUNK as u128);
    let logits = vocab * if rounded { 6 } else { 4 };
    rows * (12 * hidden + logits + 28) + 4 * rows.div_ceil(block) * hidden
}

impl Chunk {
    /// Room for chunks of at most `tokens` rows.
    pub(crate) fn new(tokens: usize, [hidden, vocab]: [usize; 2], factors: Factors) -> Self {
        let fitting = (CHUNK_FLOATS / vocab).max(super::BLOCK) / super::BLOCK * super::BLOCK;
        let rows = CHUNK.min(fitting).min(tokens);
        Self {
            rows,
            samples: (0..rows).collect(),
            labels: vec![0; rows],
            relative: vec![1.0; rows],
            normed: vec![0.0; rows * hidden],
            d_normed: vec![0.0; rows * hidden],
            d_x: vec![0.0; rows * hidden],
            inv_rms: vec![0.0; rows],
            logits: vec![0.0; rows * vocab],
            rounded: if factors == Factors::Bf16 { vec![bf16::ZERO; rows * vocab] } else { Vec::new() },
            nats: vec![0.0; rows],
            partial: vec![0.0; rows.div_ceil(super::BLOCK) * hidden],
        }
    }

    /// Rows that fit.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Leaves the logits of all rows of `x`, one chunk's, in `logits`.
    fn logits(&mut self, x: &[f32], head: Head<'_>) {
        let samples = std::mem::take(&mut self.samples);
        let positions = &samples[..x.len() / head.hidden()];
        self.logits_at(&[Scored { x, positions, scale: 1.0 }], head);
        self.samples = samples;
    }

    /// Leaves the logits of one chunk's positions in `logits`, exit after exit.
    fn logits_at(&mut self, exits: &[Scored<'_>], head: Head<'_>) {
        let (hidden, vocab) = (head.hidden(), head.vocab());
        let rows = exits.iter().map(|exit| exit.positions.len()).sum();
        let Self { normed, inv_rms, logits, .. } = self;
        head.clock.time(Op::LmHead, Way::Forward, head.flops(rows), || {
            let (mut normed_left, mut inv_rms) = (&mut normed[..rows * hidden], &mut inv_rms[..rows]);
            for exit in exits {
                let kept = Kept { samples: exit.positions, length: 1 };
                let (out, rest) = normed_left.split_at_mut(kept.rows() * hidden);
                let (kept_rms, rest_rms) = inv_rms.split_at_mut(kept.rows());
                rms_norm::forward(exit.x, kept, (head.norm, head.eps), out, kept_rms);
                (normed_left, inv_rms) = (rest, rest_rms);
            }
            let normed = &normed[..rows * hidden];
            linear::forward(normed, head.lm_head, hidden, head.factors, &mut logits[..rows * vocab]);
        });
    }

    /// Leaves each row's cross-entropy in `nats`; the logits become `softmax − one-hot(label)`, weighted.
    fn cross_entropy(&mut self, labels: &[u32]) {
        let vocab = self.logits.len() / self.rows;
        let scored = labels.par_iter().zip(&self.relative).zip(&mut self.nats);
        let rows = self.logits.par_chunks_mut(vocab).zip(scored);
        let score = |logits: &mut [f32], ((&label, &relative), nats): ((&u32, &f32), &mut f64)| {
            let logit = logits[label as usize];
            let log_sum_exp = (active().softmax)(logits);
            logits[label as usize] -= 1.0;
            if relative != 1.0 {
                logits.iter_mut().for_each(|logit| *logit *= relative);
            }
            *nats = f64::from(log_sum_exp) - f64::from(logit);
        };
        if self.rounded.is_empty() {
            rows.for_each(|(logits, scored)| score(logits, scored));
        } else {
            // While the row is in the cache; half as wide it is read twice on the way back.
            rows.zip(self.rounded.par_chunks_mut(vocab)).for_each(|((logits, scored), rounded)| {
                score(logits, scored);
                (active().narrow)(logits, rounded);
            });
        }
    }
}

/// Logits of every row of `x`.
///
/// # Shapes
/// `x`: `[rows, hidden]`; returns `[rows, vocab]`
pub(crate) fn logits(x: &[f32], head: Head<'_>, chunk: &mut Chunk) -> Vec<f32> {
    let (hidden, vocab) = (head.hidden(), head.vocab());
    let mut all = Vec::with_capacity(x.len() / hidden * vocab);
    for x in x.chunks(chunk.rows * hidden) {
        chunk.logits(x, head);
        all.extend_from_slice(&chunk.logits[..x.len() / hidden * vocab]);
    }
    all
}

/// The cross-entropy of `labels` in nats, summed over the rows of `x`.
///
/// # Shapes
/// `x`: `[rows, hidden]`, `labels`: `[rows]`
pub(crate) fn forward(x: &[f32], labels: &[u32], head: Head<'_>, chunk: &mut Chunk) -> f64 {
    let chunks = x.chunks(chunk.rows * head.hidden()).zip(labels.chunks(chunk.rows));
    let mut nats = 0.0;
    for (x, labels) in chunks {
        chunk.logits(x, head);
        chunk.relative.fill(1.0);
        head.clock.time(Op::CrossEntropy, Way::Forward, 0.0, || chunk.cross_entropy(labels));
        nats += chunk.nats[..labels.len()].iter().sum::<f64>();
    }
    nats
}

/// Adds the gradients of `scale · CE`, summed over positions, to the shared weights', for exits whose positions
/// fit one chunk, and returns each exit's sum of nats. The gradients of their hidden states stay in the chunk,
/// exit after exit, until [`give`] adds them to a stream's.
///
/// # Shapes
/// `labels`: `[rows]`, of all positions that an exit could score
pub(crate) fn sweep<'a>(
    exits: &'a [Scored<'_>],
    labels: &[u32],
    head: Head<'_>,
    chunk: &'a mut Chunk,
    gradients: &mut Gradients<'_>,
) -> impl Iterator<Item = f64> + 'a {
    chunk.logits_at(exits, head);
    let mut of_rows = std::mem::take(&mut chunk.labels);
    let most = most(exits);
    let positions = exits.iter().flat_map(|exit| exit.positions.iter().map(|&at| (at, exit.scale)));
    let rows = of_rows.iter_mut().zip(&mut chunk.relative).zip(positions);
    let rows = rows.map(|((label, relative), (at, scale))| {
        (*label, *relative) = (labels[at], if most > 0.0 { scale / most } else { 1.0 });
    });
    let rows = rows.count();
    head.clock.time(Op::CrossEntropy, Way::Forward, 0.0, || chunk.cross_entropy(&of_rows[..rows]));
    chunk.labels = of_rows;
    head.clock
        .time(Op::LmHead, Way::Backward, 2.0 * head.flops(rows), || back(exits, head, chunk, gradients));
    let mut nats = chunk.nats.iter();
    exits.iter().map(move |exit| nats.by_ref().take(exit.positions.len()).sum())
}

/// What the heaviest loss counts: some count nothing, as LayerSkip's first exit.
fn most(exits: &[Scored<'_>]) -> f32 {
    exits.iter().map(|exit| exit.scale).fold(0.0, f32::max)
}

/// One chunk's way back, from the gradient of its logits.
fn back(exits: &[Scored<'_>], head: Head<'_>, chunk: &mut Chunk, gradients: &mut Gradients<'_>) {
    let hidden = head.hidden();
    let rows = exits.iter().map(|exit| exit.positions.len()).sum::<usize>();
    let Chunk { normed, d_normed, d_x, inv_rms, logits, rounded, partial, .. } = chunk;
    let (normed, d_normed) = (&normed[..rows * hidden], &mut d_normed[..rows * hidden]);
    let len = rows * head.vocab();
    let d_logits: Values<'_> = match rounded.is_empty() {
        true => (&logits[..len]).into(),
        false => (&rounded[..len]).into(),
    };
    let how = (most(exits), head.factors);
    linear::backward_weight(d_logits, normed, hidden, how, gradients.lm_head);
    linear::backward_input(d_logits, head.lm_head, hidden, how, d_normed);
    d_x[..rows * hidden].fill(0.0);
    let mut first = 0;
    for &Scored { x, positions, .. } in exits {
        let rows = first..first + positions.len();
        let floats = rows.start * hidden..rows.end * hidden;
        first = rows.end;
        let kept = Kept { samples: positions, length: 1 };
        let normed = rms_norm::Normed { x, kept, weight: head.norm, inv_rms: &inv_rms[rows] };
        rms_norm::backward(normed, &d_normed[floats.clone()], &mut d_x[floats], gradients.norm, partial);
    }
}

/// Adds the gradients of one exit's hidden states to those of all rows. They stand in the chunk from row `first` on.
///
/// # Shapes
/// `d_stream`: `[rows, hidden]`
pub(crate) fn give(chunk: &Chunk, first: usize, positions: &[usize], d_stream: &mut [f32]) {
    let hidden = chunk.d_x.len() / chunk.rows;
    for (d_x, position) in chunk.d_x[first * hidden..].chunks_exact(hidden).zip(positions) {
        (active().axpy)(1.0, d_x, &mut d_stream[position * hidden..][..hidden]);
    }
}

#[cfg(test)]
mod tests {
    use super::super::finite_difference::{assert_gradient, numbers};
    use super::*;

    const HIDDEN: usize = 3;
    const VOCAB: usize = 7;
    const ROWS: usize = 11;
    const LABELS: [u32; ROWS] = [0, 6, 3, 3, 1, 5, 2, 4, 6, 0, 1];

    fn head<'a>(norm: &'a [f32], lm_head: &'a [f32], clock: &'a Clock) -> Head<'a> {
        Head { norm, eps: 1e-5, lm_head, factors: Factors::F32, clock }
    }

    /// Chunks of 4 rows, so that the last one is shorter.
    fn chunk() -> Chunk {
        Chunk::new(4, [HIDDEN, VOCAB], Factors::F32)
    }

    /// Two exits that share a chunk; the loss of some positions is that of their rows alone.
    #[test]
    fn gradients_are_those_of_differences() {
        [[0.5, 2.0], [0.0, 2.0]].into_iter().for_each(check);
    }

    fn check(scales: [f32; 2]) {
        let (norm, lm_head) = (numbers(HIDDEN, 2), numbers(VOCAB * HIDDEN, 3));
        let (xs, clock) = ([numbers(ROWS * HIDDEN, 1), numbers(ROWS * HIDDEN, 4)], Clock::new());
        let positions = [vec![1, 2, 5, 7, 8, 10], vec![0, 10]];
        let scored = |exit: usize| Scored { x: &xs[exit], positions: &positions[exit], scale: scales[exit] };
        let [mut d_norm, mut d_lm_head] = [vec![0.0; HIDDEN], vec![0.0; lm_head.len()]];
        let mut d_xs = [vec![0.0; ROWS * HIDDEN], vec![0.0; ROWS * HIDDEN]];
        let mut chunk = Chunk::new(9, [HIDDEN, VOCAB], Factors::F32);
        let mut gradients = Gradients { norm: &mut d_norm, lm_head: &mut d_lm_head };
        let exits = [scored(0), scored(1)];
        let head_now = head(&norm, &lm_head, &clock);
        let nats: Vec<f64> = sweep(&exits, &LABELS, head_now, &mut chunk, &mut gradients).collect();
        give(&chunk, 0, &positions[0], &mut d_xs[0]);
        give(&chunk, positions[0].len(), &positions[1], &mut d_xs[1]);

        let of = |exit: usize, x: &[f32], norm: &[f32], lm_head: &[f32]| {
            let labels: Vec<u32> = positions[exit].iter().map(|&position| LABELS[position]).collect();
            let rows = positions[exit].iter().flat_map(|position| &x[position * HIDDEN..][..HIDDEN]);
            let rows: Vec<f32> = rows.copied().collect();
            forward(&rows, &labels, head(norm, lm_head, &clock), &mut self::chunk())
        };
        let both = |norm: &[f32], lm_head: &[f32]| -> f64 {
            (0..2).map(|exit| f64::from(scales[exit]) * of(exit, &xs[exit], norm, lm_head)).sum()
        };
        for exit in 0..2 {
            assert!((nats[exit] - of(exit, &xs[exit], &norm, &lm_head)).abs() < 1e-12);
            if scales[exit] == 0.0 {
                assert!(d_xs[exit].iter().all(|&d| d == 0.0), "what counts nothing has no gradient");
                continue;
            }
            let loss = |x: &[f32]| f64::from(scales[exit]) * of(exit, x, &norm, &lm_head);
            assert_gradient("x", &xs[exit], &d_xs[exit], loss);
        }
        assert_gradient("norm", &norm, &d_norm, |norm| both(norm, &lm_head));
        assert_gradient("lm_head", &lm_head, &d_lm_head, |lm_head| both(&norm, lm_head));
    }

    #[test]
    fn the_loss_is_the_cross_entropy_of_the_logits() {
        let (x, norm, lm_head) = (numbers(ROWS * HIDDEN, 1), numbers(HIDDEN, 2), numbers(VOCAB * HIDDEN, 3));
        let clock = Clock::new();
        let logits = logits(&x, head(&norm, &lm_head, &clock), &mut chunk());
        let expected: f64 = logits
            .chunks_exact(VOCAB)
            .zip(LABELS)
            .map(|(row, label)| {
                let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
                total.ln() - f64::from(row[label as usize])
            })
            .sum();
        let found = forward(&x, &LABELS, head(&norm, &lm_head, &clock), &mut chunk());
        assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
    }
}
