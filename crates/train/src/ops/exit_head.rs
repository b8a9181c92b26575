//! The one exit head: final norm, LM head and cross-entropy, fused and in chunks of tokens, so that
//! `[tokens, vocab]` is never held.
//!
//! A chunk's logits become their own gradient in place, so that one sweep does the way there and the way
//! back. Memory does not depend on how many exits a step trains: they take turns.

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

/// Where the gradients of one exit go; all are added to.
pub(crate) struct Gradients<'a> {
    pub(crate) norm: &'a mut [f32],    // [hidden]
    pub(crate) lm_head: &'a mut [f32], // [vocab, hidden]
    pub(crate) x: &'a mut [f32],       // [rows, hidden]
}

/// What is scored: the hidden states of one exit, and at which of their positions.
#[derive(Clone, Copy)]
pub(crate) struct Scored<'a> {
    pub(crate) x: &'a [f32],           // [rows, hidden]
    pub(crate) labels: &'a [u32],      // [rows]
    pub(crate) positions: &'a [usize], // increasing
}

/// Room for one chunk.
#[derive(Debug)]
pub(crate) struct Chunk {
    rows: usize,
    samples: Vec<usize>, // 0, 1, …: rows of a chunk are samples of one token to the norm
    labels: Vec<u32>,    // [rows]
    normed: Vec<f32>,    // [rows, hidden]
    d_normed: Vec<f32>,  // [rows, hidden]
    d_x: Vec<f32>,       // [rows, hidden]
    inv_rms: Vec<f32>,   // [rows]
    logits: Vec<f32>,    // [rows, vocab]
    rounded: Vec<bf16>,  // [rows, vocab], the gradient of the logits in `bf16`
    nats: Vec<f64>,      // [rows]
    partial: Vec<f32>,   // [blocks of rows, hidden]
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

    /// Leaves the logits of all rows of `x`, one chunk's, in `logits`.
    fn logits(&mut self, x: &[f32], head: Head<'_>) {
        let rows = x.len() / head.hidden();
        let samples = std::mem::take(&mut self.samples);
        self.logits_at(x, &samples[..rows], head);
        self.samples = samples;
    }

    /// Leaves the logits of `x` at one chunk's positions in `logits`.
    fn logits_at(&mut self, x: &[f32], positions: &[usize], head: Head<'_>) {
        let (hidden, vocab, rows) = (head.hidden(), head.vocab(), positions.len());
        let kept = Kept { samples: positions, length: 1 };
        let normed = &mut self.normed[..rows * hidden];
        head.clock.time(Op::LmHead, Way::Forward, head.flops(rows), || {
            rms_norm::forward(x, kept, (head.norm, head.eps), normed, &mut self.inv_rms[..rows]);
            linear::forward(normed, head.lm_head, hidden, head.factors, &mut self.logits[..rows * vocab]);
        });
    }

    /// The chunk's cross-entropy in nats; the logits become `softmax − one-hot(label)`.
    fn cross_entropy(&mut self, labels: &[u32]) -> f64 {
        let vocab = self.logits.len() / self.rows;
        let rows = self.logits.par_chunks_mut(vocab).zip(labels.par_iter().zip(self.nats.par_iter_mut()));
        let score = |logits: &mut [f32], label: u32, nats: &mut f64| {
            let logit = logits[label as usize];
            let log_sum_exp = (active().softmax)(logits);
            logits[label as usize] -= 1.0;
            *nats = f64::from(log_sum_exp) - f64::from(logit);
        };
        if self.rounded.is_empty() {
            rows.for_each(|(logits, (&label, nats))| score(logits, label, nats));
        } else {
            // While the row is in the cache; half as wide it is read twice on the way back.
            rows.zip(self.rounded.par_chunks_mut(vocab)).for_each(|((logits, (&label, nats)), rounded)| {
                score(logits, label, nats);
                (active().narrow)(logits, rounded);
            });
        }
        self.nats[..labels.len()].iter().sum()
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
        nats += head.clock.time(Op::CrossEntropy, Way::Forward, 0.0, || chunk.cross_entropy(labels));
    }
    nats
}

/// The cross-entropy in nats, summed over the scored positions; adds `scale` times its gradient to
/// `gradients`, whose `x` has all rows.
pub(crate) fn forward_backward(
    scored: Scored<'_>,
    head: Head<'_>,
    scale: f32,
    chunk: &mut Chunk,
    mut gradients: Gradients<'_>,
) -> f64 {
    let mut nats = 0.0;
    for positions in scored.positions.chunks(chunk.rows) {
        let rows = positions.len();
        chunk.logits_at(scored.x, positions, head);
        let mut labels = std::mem::take(&mut chunk.labels);
        labels.iter_mut().zip(positions).for_each(|(label, &position)| *label = scored.labels[position]);
        nats += head.clock.time(Op::CrossEntropy, Way::Forward, 0.0, || chunk.cross_entropy(&labels[..rows]));
        chunk.labels = labels;

        head.clock.time(Op::LmHead, Way::Backward, 2.0 * head.flops(rows), || {
            back(Scored { positions, ..scored }, head, scale, chunk, &mut gradients);
        });
    }
    nats
}

/// One chunk's way back, from the gradient of its logits.
fn back(scored: Scored<'_>, head: Head<'_>, scale: f32, chunk: &mut Chunk, gradients: &mut Gradients<'_>) {
    let (hidden, positions, rows) = (head.hidden(), scored.positions, scored.positions.len());
    let Chunk { normed, d_normed, d_x, inv_rms, logits, rounded, partial, .. } = chunk;
    let (normed, d_normed) = (&normed[..rows * hidden], &mut d_normed[..rows * hidden]);
    let len = rows * head.vocab();
    let d_logits: Values<'_> = match rounded.is_empty() {
        true => (&logits[..len]).into(),
        false => (&rounded[..len]).into(),
    };
    linear::backward_weight(d_logits, normed, hidden, (scale, head.factors), gradients.lm_head);
    linear::backward_input(d_logits, head.lm_head, hidden, (scale, head.factors), d_normed);
    let kept = Kept { samples: positions, length: 1 };
    let normed = rms_norm::Normed { x: scored.x, kept, weight: head.norm, inv_rms: &inv_rms[..rows] };
    let d_x = &mut d_x[..rows * hidden];
    d_x.fill(0.0);
    rms_norm::backward(normed, d_normed, d_x, gradients.norm, partial);
    for (d_x, position) in d_x.chunks_exact(hidden).zip(positions) {
        (active().axpy)(1.0, d_x, &mut gradients.x[position * hidden..][..hidden]);
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

    /// At all positions, and at some of them: the loss of the latter is that of the rows alone.
    #[test]
    fn gradients_are_those_of_differences() {
        let (x, norm, lm_head) = (numbers(ROWS * HIDDEN, 1), numbers(HIDDEN, 2), numbers(VOCAB * HIDDEN, 3));
        let (scale, clock) = (0.5, Clock::new());
        for positions in [(0..ROWS).collect(), vec![1, 2, 5, 7, 8, 10]] {
            let [mut d_x, mut d_norm, mut d_lm_head] =
                [vec![0.0; x.len()], vec![0.0; HIDDEN], vec![0.0; lm_head.len()]];
            let gradients = Gradients { norm: &mut d_norm, lm_head: &mut d_lm_head, x: &mut d_x };
            let scored = Scored { x: &x, labels: &LABELS, positions: &positions };
            let nats =
                forward_backward(scored, head(&norm, &lm_head, &clock), scale, &mut chunk(), gradients);
            let labels: Vec<u32> = positions.iter().map(|&position| LABELS[position]).collect();
            let loss = |x: &[f32], norm: &[f32], lm_head: &[f32]| {
                let rows = positions.iter().flat_map(|position| &x[position * HIDDEN..][..HIDDEN]);
                let rows: Vec<f32> = rows.copied().collect();
                f64::from(scale) * forward(&rows, &labels, head(norm, lm_head, &clock), &mut chunk())
            };
            assert_eq!(f64::from(scale) * nats, loss(&x, &norm, &lm_head));
            assert_gradient("x", &x, &d_x, |x| loss(x, &norm, &lm_head));
            assert_gradient("norm", &norm, &d_norm, |norm| loss(&x, norm, &lm_head));
            assert_gradient("lm_head", &lm_head, &d_lm_head, |lm_head| loss(&x, &norm, lm_head));
        }
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
