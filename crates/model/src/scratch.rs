//! What a call needs beside the tokens in flight: room for a layer's results, kept by the caller from call to
//! call.

use crate::exit_adapters::AdapterBuffers;
use crate::work::Work;
use offramp_kernels::Operand;

/// Buffers of [`Llama::forward`](crate::Llama::forward) and [`Llama::head`](crate::Llama::head), and a count
/// of what these calls cost. One serves any models and texts, one call at a time.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    pub(crate) normed: Vec<f32>,      // [rows, hidden]
    pub(crate) operand: Operand,      // a product's input, in the formats that weights ask for
    pub(crate) queries: Vec<f32>,     // [rows, heads, head_dim]
    pub(crate) keys: Vec<f32>,        // [rows, kv_heads, head_dim]
    pub(crate) values: Vec<f32>,      // [rows, kv_heads, head_dim]
    pub(crate) attended: Vec<f32>,    // [rows, heads, head_dim]
    pub(crate) gate: Vec<f32>,        // [rows, intermediate]
    pub(crate) up: Vec<f32>,          // [rows, intermediate]
    pub(crate) gated: Vec<f32>,       // [rows, intermediate]
    pub(crate) residual: Vec<f32>,    // [rows, hidden]
    pub(crate) shortlisted: Vec<f32>, // [rows, shortlist]
    pub(crate) adapter: AdapterBuffers,
    pub(crate) angles: Angles,
    pub(crate) work: Work,
}

/// Rotary angles of a call's rows, computed once for all layers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Angles {
    pub(crate) model: Option<u64>,
    pub(crate) positions: Vec<usize>, // [rows]
    pub(crate) cos: Vec<f32>,         // [rows, head_dim / 2]
    pub(crate) sin: Vec<f32>,         // [rows, head_dim / 2]
}

impl Scratch {
    /// One without any buffers yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// What all calls with it have cost so far.
    pub fn work(&self) -> Work {
        self.work
    }

    /// Bytes that a layer's results of `rows` rows would take beyond those that are held: `width` values for
    /// each row, `inner` of them in the widest.
    pub(crate) fn missing(&self, rows: usize, width: usize, inner: usize) -> u64 {
        let held = self.gated.capacity() / inner.max(1);
        if rows <= held {
            return 0;
        }
        (rows as u64).saturating_mul(width as u64).saturating_mul(size_of::<f32>() as u64)
    }
}
