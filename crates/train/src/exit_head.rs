//! The one exit head: final norm, LM head and cross-entropy, in chunks of rows, so that `[tokens, vocab]` is
//! never held.
//!
//! A chunk's logits become their own gradient in place, so forward and backward run in one sweep. Memory does
//! not depend on how many exits a step trains: exits take turns, and exits with few scored positions share a
//! chunk, because a product with the whole head costs much for few rows.
//!
//! A shared product makes the gradients of several depths at once, and the gradient of the residual stream
//! has come down to the deepest of them only. So the others wait in the chunk, in the rows in which the
//! norm's backward left them, until the backward of the layers reaches their depth
//! ([`Chunk::add_input_gradient`]). Adding them at once would need a gradient of the stream for each depth.

mod teacher;

use crate::ops::distillation::{self, Targets};
use crate::ops::{BLOCK, Kept, adapter, cross_entropy, linear, residual, rms_norm, values};
use crate::profile::{Clock, Op, Pass, product};
use offramp_kernels::bf16;
use offramp_kernels::gemm::{Factors, Values};
pub use teacher::Distillation;
use teacher::TeacherRows;
pub(crate) use teacher::Teaching;

/// Rows whose logits are held at once, at most.
///
/// Every chunk reads the head's weights twice and adds to the whole of their gradient. With a vocabulary of
/// 50,257 tokens a chunk of 320 rows spent a tenth of its time on that.
const CHUNK: usize = 1024;
/// Logits held at once, at most (256 MiB), unless one block of rows has more.
const CHUNK_LOGITS: usize = 1 << 26;

/// The weights of a head, and how it computes.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub(crate) norm: &'a [f32], // [hidden]
    pub(crate) eps: f32,
    pub(crate) lm_head: &'a [f32], // [vocab, hidden]
    pub(crate) adapter: Option<adapter::Weights<'a>>,
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

/// The gradients of a head's weights; they are added to.
pub(crate) struct Gradients<'a> {
    pub(crate) norm: &'a mut [f32],            // [hidden]
    pub(crate) lm_head: Option<&'a mut [f32]>, // [vocab, hidden], unless it does not learn
    pub(crate) adapter: Option<adapter::Gradients<'a>>,
}

/// One exit's hidden states, the positions that are scored, and the weight of each position's loss.
#[derive(Clone, Copy)]
pub(crate) struct Scored<'a> {
    pub(crate) x: &'a [f32],           // [rows, hidden]
    pub(crate) positions: &'a [usize], // increasing
    pub(crate) weight: f32,
    /// The teacher's share of the loss.
    pub(crate) share: f32,
}

/// The buffers of one chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    rows: usize,
    all_rows: Vec<usize>, // 0, 1, …: to the norm, each row is a sample of one token
    labels: Vec<u32>,     // [rows]
    relative: Vec<f32>,   // [rows], the weight of a row's loss over the largest weight
    normed: Vec<f32>,     // [rows, hidden]
    d_normed: Vec<f32>,   // [rows, hidden]
    d_x: Vec<f32>,        // [rows, hidden]
    inv_rms: Vec<f32>,    // [rows]
    logits: Vec<f32>,     // [rows, vocab]
    narrow: Vec<bf16>,    // [rows, vocab], the gradient of the logits in `bf16`, or empty
    nats: Vec<f64>,       // [rows]
    partial: Vec<f32>,    // [blocks of rows, hidden]
    teacher: Option<TeacherRows>,
    adapter: Option<adapter::Buffers>,
}

/// Bytes of a [`Chunk`] for `tokens` rows. In `bf16` the gradient of the logits is held twice, and beside a
/// teacher are its logits.
pub(crate) fn chunk_bytes(tokens: u128, hidden: u128, vocab: u128, bf16: bool, teacher: bool) -> u128 {
    let block = BLOCK as u128;
    let fitting = (CHUNK_LOGITS as u128 / vocab).max(block) / block * block;
    let rows = tokens.min(fitting).min(CHUNK as u128);
    let logits = vocab * if bf16 { 6 } else { 4 };
    let teacher = if teacher { teacher::bytes(rows, vocab) } else { 0 };
    rows * (12 * hidden + logits + 28) + 4 * rows.div_ceil(block) * hidden + teacher
}

impl Chunk {
    /// Buffers for chunks of at most `tokens` rows.
    pub(crate) fn new(tokens: usize, hidden: usize, vocab: usize, factors: Factors) -> Self {
        let fitting = (CHUNK_LOGITS / vocab).max(BLOCK) / BLOCK * BLOCK;
        let rows = CHUNK.min(fitting).min(tokens);
        Self {
            rows,
            all_rows: (0..rows).collect(),
            labels: vec![0; rows],
            relative: vec![1.0; rows],
            normed: vec![0.0; rows * hidden],
            d_normed: vec![0.0; rows * hidden],
            d_x: vec![0.0; rows * hidden],
            inv_rms: vec![0.0; rows],
            logits: vec![0.0; rows * vocab],
            narrow: if factors == Factors::Bf16 { vec![bf16::ZERO; rows * vocab] } else { Vec::new() },
            nats: vec![0.0; rows],
            partial: vec![0.0; rows.div_ceil(BLOCK) * hidden],
            teacher: None,
            adapter: None,
        }
    }

    /// The same, with buffers for the logits of a teacher.
    #[must_use]
    pub(crate) fn with_teacher(self) -> Self {
        let vocab = self.logits.len() / self.rows.max(1);
        Self { teacher: Some(TeacherRows::new(self.rows, vocab)), ..self }
    }

    /// The same, with buffers for adapters of such a rank.
    #[must_use]
    pub(crate) fn with_adapters(self, rank: usize) -> Self {
        let hidden = self.normed.len() / self.rows.max(1);
        Self { adapter: Some(adapter::Buffers::new(self.rows, hidden, rank)), ..self }
    }

    /// Rows that fit.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Logits of every row of `x`.
    ///
    /// # Shapes
    /// `x`: `[rows, hidden]`; returns `[rows, vocab]`
    pub(crate) fn logits(&mut self, x: &[f32], head: Head<'_>) -> Vec<f32> {
        let (hidden, vocab) = (head.hidden(), head.vocab());
        let mut all = Vec::with_capacity(x.len() / hidden * vocab);
        for x in x.chunks(self.rows * hidden) {
            self.forward_all(x, head);
            all.extend_from_slice(&self.logits[..x.len() / hidden * vocab]);
        }
        all
    }

    /// The cross-entropy of `labels` in nats, summed over the rows of `x`.
    ///
    /// # Shapes
    /// `x`: `[rows, hidden]`, `labels`: `[rows]`
    pub(crate) fn nats(&mut self, x: &[f32], labels: &[u32], head: Head<'_>) -> f64 {
        let mut sum = 0.0;
        for (x, labels) in x.chunks(self.rows * head.hidden()).zip(labels.chunks(self.rows)) {
            self.forward_all(x, head);
            let logits = &mut self.logits[..labels.len() * head.vocab()];
            let nats = &mut self.nats[..labels.len()];
            let work = || cross_entropy::forward(logits, labels, nats);
            head.clock.time(Op::CrossEntropy, Pass::Forward, 0.0, work);
            sum += nats.iter().sum::<f64>();
        }
        sum
    }

    /// Forward and backward of exits whose positions fit one chunk, for the loss `Σ weight · cross-entropy`,
    /// of which each exit's share is the distance from `teaching` instead. Adds to `gradients` and returns
    /// each exit's sum of nats. The gradients of the hidden states stay in the chunk, exit after exit, for
    /// [`Chunk::add_input_gradient`].
    ///
    /// # Shapes
    /// `labels`: `[rows]`, of all positions that an exit could score
    pub(crate) fn forward_backward<'a>(
        &'a mut self,
        exits: &'a [Scored<'_>],
        labels: &[u32],
        head: Head<'_>,
        teaching: Option<Teaching<'_>>,
        gradients: &mut Gradients<'_>,
    ) -> impl Iterator<Item = f64> + 'a {
        self.forward(exits, head);
        let rows = self.set_targets(exits, labels);
        let len = rows * head.vocab();
        let taught = teaching.filter(|_| exits.iter().any(|exit| exit.share > 0.0));
        let Self { labels, relative, logits, narrow, nats, d_normed, teacher, .. } = self;
        let (labels, weights, nats) = (&labels[..rows], &relative[..rows], &mut nats[..rows]);
        let narrow = if narrow.is_empty() { narrow } else { &mut narrow[..len] };
        match taught.zip(teacher.as_mut()) {
            None => head.clock.time(Op::CrossEntropy, Pass::Forward, 0.0, || {
                cross_entropy::forward_backward(&mut logits[..len], labels, weights, nats, narrow);
            }),
            Some((teaching, teacher)) => {
                teacher.ask(exits, teaching, d_normed);
                let (shares, loss) = (&teacher.shares[..rows], teaching.loss);
                let targets = Targets { labels, weights, shares, teacher: &mut teacher.logits[..len], loss };
                head.clock.time(Op::CrossEntropy, Pass::Forward, 0.0, || {
                    distillation::forward_backward(&mut logits[..len], targets, nats, narrow);
                });
            }
        }
        let flops = 2.0 * head.flops(rows);
        head.clock.time(Op::LmHead, Pass::Backward, flops, || self.backward(exits, head, gradients));
        let mut nats = self.nats.iter();
        exits.iter().map(move |exit| nats.by_ref().take(exit.positions.len()).sum())
    }

    /// Adds the gradients of one exit's hidden states to those of all rows. They stand in the chunk from row
    /// `first` on.
    ///
    /// # Shapes
    /// `d_stream`: `[rows, hidden]`
    pub(crate) fn add_input_gradient(&self, first: usize, positions: &[usize], d_stream: &mut [f32]) {
        let hidden = self.d_x.len() / self.rows;
        let d_x = &self.d_x[first * hidden..][..positions.len() * hidden];
        residual::add_rows(d_x, positions, hidden, d_stream);
    }

    /// Leaves the logits of all rows of `x`, at most one chunk, in `logits`.
    fn forward_all(&mut self, x: &[f32], head: Head<'_>) {
        let all_rows = std::mem::take(&mut self.all_rows);
        let positions = &all_rows[..x.len() / head.hidden()];
        self.forward(&[Scored { x, positions, weight: 1.0, share: 0.0 }], head);
        self.all_rows = all_rows;
    }

    /// Leaves the logits of one chunk's positions in `logits`, exit after exit.
    fn forward(&mut self, exits: &[Scored<'_>], head: Head<'_>) {
        let (hidden, vocab) = (head.hidden(), head.vocab());
        let rows = exits.iter().map(|exit| exit.positions.len()).sum();
        let Self { normed, inv_rms, logits, adapter, .. } = self;
        head.clock.time(Op::LmHead, Pass::Forward, head.flops(rows), || {
            let mut first = 0;
            for exit in exits {
                let kept = Kept { samples: exit.positions, length: 1 };
                let out = &mut normed[first * hidden..][..kept.rows() * hidden];
                let inv_rms = &mut inv_rms[first..][..kept.rows()];
                rms_norm::forward(exit.x, kept, head.norm, head.eps, out, inv_rms);
                first += kept.rows();
            }
            let normed = &normed[..rows * hidden];
            let normed = match (head.adapter, adapter.as_mut()) {
                (Some(weights), Some(adapter)) => {
                    adapter.forward(normed, weights, head.factors);
                    &adapter.out[..rows * hidden]
                }
                _ => normed,
            };
            linear::forward(normed, head.lm_head, hidden, head.factors, &mut logits[..rows * vocab]);
        });
    }

    /// Writes the label and the relative weight of each scored row, and returns how many rows there are.
    fn set_targets(&mut self, exits: &[Scored<'_>], labels: &[u32]) -> usize {
        let largest = largest_weight(exits);
        let mut row = 0;
        for exit in exits {
            let relative = if largest > 0.0 { exit.weight / largest } else { 1.0 };
            for &position in exit.positions {
                (self.labels[row], self.relative[row]) = (labels[position], relative);
                row += 1;
            }
        }
        row
    }

    /// The backward of one chunk, from the gradient of its logits.
    fn backward(&mut self, exits: &[Scored<'_>], head: Head<'_>, gradients: &mut Gradients<'_>) {
        let hidden = head.hidden();
        let rows = exits.iter().map(|exit| exit.positions.len()).sum::<usize>();
        let Self { normed, d_normed, d_x, inv_rms, logits, narrow, partial, adapter, .. } = self;
        let (normed, d_normed) = (&normed[..rows * hidden], &mut d_normed[..rows * hidden]);
        let len = rows * head.vocab();
        let d_logits: Values<'_> = match narrow.is_empty() {
            true => (&logits[..len]).into(),
            false => (&narrow[..len]).into(),
        };
        let alpha = largest_weight(exits);
        if let Some(lm_head) = &mut gradients.lm_head {
            linear::backward_weight(d_logits, normed, hidden, alpha, head.factors, lm_head);
        }
        linear::backward_input(d_logits, head.lm_head, hidden, alpha, head.factors, d_normed);
        if let (Some(weights), Some(gradients)) = (head.adapter, &mut gradients.adapter) {
            let adapter = adapter.as_mut().expect("buffers of adapters");
            adapter.backward(normed, weights, gradients, head.factors, d_normed);
        }
        values::zero(&mut d_x[..rows * hidden]);
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
}

/// The largest weight of any loss. A weight may be zero, as that of LayerSkip's first exit.
fn largest_weight(exits: &[Scored<'_>]) -> f32 {
    exits.iter().map(|exit| exit.weight).fold(0.0, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::finite_difference::{assert_gradient, numbers};

    const HIDDEN: usize = 3;
    const VOCAB: usize = 7;
    const ROWS: usize = 11;
    const LABELS: [u32; ROWS] = [0, 6, 3, 3, 1, 5, 2, 4, 6, 0, 1];

    fn head<'a>(norm: &'a [f32], lm_head: &'a [f32], clock: &'a Clock) -> Head<'a> {
        Head { norm, eps: 1e-5, lm_head, adapter: None, factors: Factors::F32, clock }
    }

    /// Chunks of 4 rows, so that the last one is shorter.
    fn chunk() -> Chunk {
        Chunk::new(4, HIDDEN, VOCAB, Factors::F32)
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
        let scored = |exit: usize| Scored {
            x: &xs[exit],
            positions: &positions[exit],
            weight: scales[exit],
            share: 0.0,
        };
        let [mut d_norm, mut d_lm_head] = [vec![0.0; HIDDEN], vec![0.0; lm_head.len()]];
        let mut d_xs = [vec![0.0; ROWS * HIDDEN], vec![0.0; ROWS * HIDDEN]];
        let mut chunk = Chunk::new(9, HIDDEN, VOCAB, Factors::F32);
        let mut gradients = Gradients { norm: &mut d_norm, lm_head: Some(&mut d_lm_head), adapter: None };
        let exits = [scored(0), scored(1)];
        let head_now = head(&norm, &lm_head, &clock);
        let nats: Vec<f64> =
            chunk.forward_backward(&exits, &LABELS, head_now, None, &mut gradients).collect();
        chunk.add_input_gradient(0, &positions[0], &mut d_xs[0]);
        chunk.add_input_gradient(positions[0].len(), &positions[1], &mut d_xs[1]);

        let of = |exit: usize, x: &[f32], norm: &[f32], lm_head: &[f32]| {
            let labels: Vec<u32> = positions[exit].iter().map(|&position| LABELS[position]).collect();
            let rows = positions[exit].iter().flat_map(|position| &x[position * HIDDEN..][..HIDDEN]);
            let rows: Vec<f32> = rows.copied().collect();
            self::chunk().nats(&rows, &labels, head(norm, lm_head, &clock))
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
        let logits = chunk().logits(&x, head(&norm, &lm_head, &clock));
        let expected: f64 = logits
            .chunks_exact(VOCAB)
            .zip(LABELS)
            .map(|(row, label)| {
                let total: f64 = row.iter().map(|&logit| f64::from(logit).exp()).sum();
                total.ln() - f64::from(row[label as usize])
            })
            .sum();
        let found = chunk().nats(&x, &LABELS, head(&norm, &lm_head, &clock));
        assert!((found - expected).abs() < 1e-5, "{found} instead of {expected}");
    }
}
