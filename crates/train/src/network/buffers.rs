//! The network's memory: made once, for the largest batch.

use crate::ops::attention;
use crate::ops::rms_norm::PARTS;
use offramp_model::Config;

/// What one layer keeps for its backward pass. Rows are those of the kept samples, packed.
#[derive(Debug)]
pub(super) struct Saved {
    pub(super) inv_rms_1: Vec<f32>, // [rows]
    pub(super) normed_1: Vec<f32>,  // [rows, hidden]
    pub(super) queries: Vec<f32>,   // [samples, heads, sequence, head_dim], rotated
    pub(super) keys: Vec<f32>,      // [samples, kv_heads, sequence, head_dim], rotated
    pub(super) values: Vec<f32>,    // [samples, kv_heads, sequence, head_dim]
    pub(super) attended: Vec<f32>,  // [samples, heads, sequence, head_dim]
    pub(super) merged: Vec<f32>,    // [rows, heads · head_dim]
    pub(super) middle: Vec<f32>,    // [rows, hidden], the stream after attention
    pub(super) inv_rms_2: Vec<f32>, // [rows]
    pub(super) normed_2: Vec<f32>,  // [rows, hidden]
    pub(super) gate: Vec<f32>,      // [rows, intermediate]
    pub(super) up: Vec<f32>,        // [rows, intermediate]
    pub(super) gated: Vec<f32>,     // [rows, intermediate]
}

impl Saved {
    pub(super) fn new(config: &Config, tokens: usize) -> Self {
        let rows = |width: usize| vec![0.0; tokens * width];
        let (queries, keys) = widths(config);
        Self {
            inv_rms_1: rows(1),
            normed_1: rows(config.hidden_size),
            queries: rows(queries),
            keys: rows(keys),
            values: rows(keys),
            attended: rows(queries),
            merged: rows(queries),
            middle: rows(config.hidden_size),
            inv_rms_2: rows(1),
            normed_2: rows(config.hidden_size),
            gate: rows(config.intermediate_size),
            up: rows(config.intermediate_size),
            gated: rows(config.intermediate_size),
        }
    }
}

/// Room that all layers share: forward results that are not kept, and gradients on their way.
#[derive(Debug)]
pub(super) struct Scratch {
    pub(super) query_rows: Vec<f32>,     // [rows, heads · head_dim]
    pub(super) key_rows: Vec<f32>,       // [rows, kv_heads · head_dim]
    pub(super) value_rows: Vec<f32>,     // [rows, kv_heads · head_dim]
    pub(super) from_attention: Vec<f32>, // [rows, hidden]
    pub(super) from_mlp: Vec<f32>,       // [rows, hidden]
    pub(super) d_middle: Vec<f32>,       // [rows, hidden]
    pub(super) d_normed: Vec<f32>,       // [rows, hidden]
    pub(super) d_gated: Vec<f32>,        // [rows, intermediate]
    pub(super) d_attended: Vec<f32>,     // [samples, heads, sequence, head_dim]
    pub(super) d_queries: Vec<f32>,      // as queries
    pub(super) d_keys: Vec<f32>,         // as keys
    pub(super) d_values: Vec<f32>,       // as values
    pub(super) tiles: Vec<f32>,          // [samples · kv_heads, attention::Shape::scratch]
    pub(super) parts: Vec<f32>,          // [PARTS, hidden]
}

impl Scratch {
    pub(super) fn new(config: &Config, samples: usize, sequence: usize) -> Self {
        let rows = |width: usize| vec![0.0; samples * sequence * width];
        let (queries, keys) = widths(config);
        let (group, head_dim) = (queries / keys, config.head_dim);
        let tile = attention::Shape { sequence, group, head_dim }.scratch();
        Self {
            query_rows: rows(queries),
            key_rows: rows(keys),
            value_rows: rows(keys),
            from_attention: rows(config.hidden_size),
            from_mlp: rows(config.hidden_size),
            d_middle: rows(config.hidden_size),
            d_normed: rows(config.hidden_size),
            d_gated: rows(config.intermediate_size),
            d_attended: rows(queries),
            d_queries: rows(queries),
            d_keys: rows(keys),
            d_values: rows(keys),
            tiles: vec![0.0; samples * config.num_key_value_heads * tile],
            parts: vec![0.0; PARTS * config.hidden_size],
        }
    }
}

/// Widths of all query heads and of all key heads.
fn widths(config: &Config) -> (usize, usize) {
    (config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim)
}
