//! One decoder layer, forward and back, over the samples that layer dropout kept.

use super::{Network, Plan, sizes};
use crate::ops::rms_norm::{Rows, Saved as SavedNorm, Sums};
use crate::ops::{attention, heads, linear, residual, rms_norm, swiglu};
use offramp_kernels::gemm::Write;

impl Network {
    pub(super) fn layer_forward(&mut self, l: usize, weights: &[f32], plan: &Plan, tokens: usize) {
        let (query_heads, key_heads, shape) = (self.query_heads(), self.key_heads(), self.attention());
        let (hidden, inner, eps) =
            (self.config.hidden_size, self.config.intermediate_size, self.config.rms_norm_eps as f32);
        let (wide, narrow) = (query_heads.heads * shape.head_dim, key_heads.heads * shape.head_dim);
        let w = |range: &std::ops::Range<usize>| &weights[range.clone()];
        let (layout, saved, s) = (&self.layout.layers[l], &mut self.saved[l], &mut self.scratch);
        let (before, after) = self.stream.split_at_mut(l + 1);
        let (x, next) = (&before[l][..tokens * hidden], &mut after[0][..tokens * hidden]);
        let rows = Rows { kept: &plan.kept[l], sequence: self.sequence };
        let n = rows.len();
        if n == 0 {
            return next.copy_from_slice(x);
        }

        let normed = &mut saved.normed_1[..n * hidden];
        rms_norm::forward(rows, x, (w(&layout.input_layernorm), eps), normed, &mut saved.inv_rms_1[..n]);
        let (queries, keys, values) =
            (&mut s.query_rows[..n * wide], &mut s.key_rows[..n * narrow], &mut s.value_rows[..n * narrow]);
        linear::forward(sizes(n, hidden, wide), normed, w(&layout.q_proj), queries);
        linear::forward(sizes(n, hidden, narrow), normed, w(&layout.k_proj), keys);
        linear::forward(sizes(n, hidden, narrow), normed, w(&layout.v_proj), values);
        heads::split(query_heads, queries, Some(&self.angles), &mut saved.queries[..n * wide]);
        heads::split(key_heads, keys, Some(&self.angles), &mut saved.keys[..n * narrow]);
        heads::split(key_heads, values, None, &mut saved.values[..n * narrow]);
        let inputs = attention::Inputs {
            queries: &saved.queries[..n * wide],
            keys: &saved.keys[..n * narrow],
            values: &saved.values[..n * narrow],
        };
        attention::forward(shape, inputs, &mut saved.attended[..n * wide], &mut s.tiles);
        let merged = &mut saved.merged[..n * wide];
        heads::merge(query_heads, &saved.attended[..n * wide], None, merged);
        let from_attention = &mut s.from_attention[..n * hidden];
        linear::forward(sizes(n, wide, hidden), merged, w(&layout.o_proj), from_attention);
        let middle = &mut saved.middle[..n * hidden];
        residual::gather_add(rows, x, from_attention, middle);

        let normed = &mut saved.normed_2[..n * hidden];
        let norm = (w(&layout.post_attention_layernorm), eps);
        rms_norm::forward(packed(n), middle, norm, normed, &mut saved.inv_rms_2[..n]);
        let (gate, up) = (&mut saved.gate[..n * inner], &mut saved.up[..n * inner]);
        linear::forward(sizes(n, hidden, inner), normed, w(&layout.gate_proj), gate);
        linear::forward(sizes(n, hidden, inner), normed, w(&layout.up_proj), up);
        let gated = &mut saved.gated[..n * inner];
        swiglu::forward(gate, up, gated);
        let from_mlp = &mut s.from_mlp[..n * hidden];
        linear::forward(sizes(n, inner, hidden), gated, w(&layout.down_proj), from_mlp);
        residual::add(rows, x, (from_attention, from_mlp), plan.scale[l], next);
    }

    /// Turns `d_stream` from the gradient after layer `l` into the gradient before it.
    pub(super) fn layer_backward(
        &mut self,
        l: usize,
        weights: &[f32],
        plan: &Plan,
        tokens: usize,
        gradients: &mut [f32],
    ) {
        let rows = Rows { kept: &plan.kept[l], sequence: self.sequence };
        if rows.is_empty() {
            return;
        }
        let (n, hidden) = (rows.len(), self.config.hidden_size);
        let d_out = &mut self.scratch.from_mlp[..n * hidden];
        residual::gather(rows, &self.d_stream[..tokens * hidden], plan.scale[l], d_out);
        self.mlp_backward(l, weights, n, gradients);
        self.attention_backward(l, weights, n, gradients);

        let (layout, saved, s) = (&self.layout.layers[l], &self.saved[l], &mut self.scratch);
        let norm = SavedNorm {
            x: &self.stream[l][..tokens * hidden],
            weight: &weights[layout.input_layernorm.clone()],
            inv_rms: &saved.inv_rms_1[..n],
        };
        let sums = Sums { d_weight: &mut gradients[layout.input_layernorm.clone()], parts: &mut s.parts };
        let d_middle = &mut s.d_middle[..n * hidden];
        rms_norm::backward(rows, norm, &s.d_normed[..n * hidden], d_middle, sums);
        residual::scatter_add(rows, d_middle, &mut self.d_stream[..tokens * hidden]);
    }

    /// From the gradient of the layer's contribution in `from_mlp` to that of the stream after
    /// attention in `d_middle`, the contribution's own share left out.
    fn mlp_backward(&mut self, l: usize, weights: &[f32], n: usize, gradients: &mut [f32]) {
        let (hidden, inner) = (self.config.hidden_size, self.config.intermediate_size);
        let (layout, saved, s) = (&self.layout.layers[l], &mut self.saved[l], &mut self.scratch);
        let w = |range: &std::ops::Range<usize>| &weights[range.clone()];
        let (down, up_or_gate) = (sizes(n, inner, hidden), sizes(n, hidden, inner));
        let (d_out, d_gated) = (&s.from_mlp[..n * hidden], &mut s.d_gated[..n * inner]);
        let d_down = &mut gradients[layout.down_proj.clone()];
        linear::backward_weight(down, &saved.gated[..n * inner], d_out, d_down);
        linear::backward_input(down, w(&layout.down_proj), d_out, Write::Replace, d_gated);

        let (gate, up) = (&mut saved.gate[..n * inner], &mut saved.up[..n * inner]);
        swiglu::backward(gate, up, d_gated);
        let (normed, d_normed) = (&saved.normed_2[..n * hidden], &mut s.d_normed[..n * hidden]);
        linear::backward_weight(up_or_gate, normed, gate, &mut gradients[layout.gate_proj.clone()]);
        linear::backward_weight(up_or_gate, normed, up, &mut gradients[layout.up_proj.clone()]);
        linear::backward_input(up_or_gate, w(&layout.gate_proj), gate, Write::Replace, d_normed);
        linear::backward_input(up_or_gate, w(&layout.up_proj), up, Write::Add, d_normed);

        let norm = SavedNorm {
            x: &saved.middle[..n * hidden],
            weight: w(&layout.post_attention_layernorm),
            inv_rms: &saved.inv_rms_2[..n],
        };
        let d_weight = &mut gradients[layout.post_attention_layernorm.clone()];
        let d_middle = &mut s.d_middle[..n * hidden];
        d_middle.fill(0.0);
        rms_norm::backward(packed(n), norm, d_normed, d_middle, Sums { d_weight, parts: &mut s.parts });
    }

    /// From the gradients in `from_mlp` and `d_middle` to that of the first norm's output in
    /// `d_normed`.
    fn attention_backward(&mut self, l: usize, weights: &[f32], n: usize, gradients: &mut [f32]) {
        let (query_heads, key_heads, shape) = (self.query_heads(), self.key_heads(), self.attention());
        let hidden = self.config.hidden_size;
        let (wide, narrow) = (query_heads.heads * shape.head_dim, key_heads.heads * shape.head_dim);
        let (layout, saved, s) = (&self.layout.layers[l], &mut self.saved[l], &mut self.scratch);
        let w = |range: &std::ops::Range<usize>| &weights[range.clone()];

        // Attention's output reaches the loss through the layer's contribution and through `middle`.
        let d_out = &mut s.from_mlp[..n * hidden];
        residual::add_into(&s.d_middle[..n * hidden], d_out);
        let out = sizes(n, wide, hidden);
        let d_merged = &mut s.query_rows[..n * wide];
        linear::backward_weight(out, &saved.merged[..n * wide], d_out, &mut gradients[layout.o_proj.clone()]);
        linear::backward_input(out, w(&layout.o_proj), d_out, Write::Replace, d_merged);
        heads::split(query_heads, d_merged, None, &mut s.d_attended[..n * wide]);

        let inputs = attention::Inputs {
            queries: &saved.queries[..n * wide],
            keys: &saved.keys[..n * narrow],
            values: &saved.values[..n * narrow],
        };
        let outputs =
            attention::Outputs { out: &saved.attended[..n * wide], d_out: &s.d_attended[..n * wide] };
        let to = attention::Gradients {
            d_queries: &mut s.d_queries[..n * wide],
            d_keys: &mut s.d_keys[..n * narrow],
            d_values: &mut s.d_values[..n * narrow],
        };
        attention::backward(shape, inputs, outputs, to, &mut s.tiles);
        let (d_queries, d_keys, d_values) =
            (&mut s.query_rows[..n * wide], &mut s.key_rows[..n * narrow], &mut s.value_rows[..n * narrow]);
        heads::merge(query_heads, &s.d_queries[..n * wide], Some(&self.angles), d_queries);
        heads::merge(key_heads, &s.d_keys[..n * narrow], Some(&self.angles), d_keys);
        heads::merge(key_heads, &s.d_values[..n * narrow], None, d_values);

        let (normed, d_normed) = (&saved.normed_1[..n * hidden], &mut s.d_normed[..n * hidden]);
        let projections = [
            (&layout.q_proj, wide, &*d_queries, Write::Replace),
            (&layout.k_proj, narrow, &*d_keys, Write::Add),
            (&layout.v_proj, narrow, &*d_values, Write::Add),
        ];
        for (range, width, d_out, write) in projections {
            let shape = sizes(n, hidden, width);
            linear::backward_weight(shape, normed, d_out, &mut gradients[range.clone()]);
            linear::backward_input(shape, w(range), d_out, write, d_normed);
        }
    }
}

/// All of `n` packed rows.
fn packed(n: usize) -> Rows<'static> {
    Rows { kept: &[0], sequence: n }
}
