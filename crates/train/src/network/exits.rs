//! The exits of a forward and backward: which of them share a chunk, and where their gradients go.

use super::parts::Parts;
use super::plan::Plan;
use super::{Call, Network};
use crate::exit_head::{Distillation, Gradients, Scored, Teaching};
use crate::ops::adapter;

/// Exits by their number in the plan, `first` up to `end`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group {
    pub(super) first: usize,
    pub(super) end: usize,
}

impl Network {
    /// The exits before number `end` that run together: as many as share a head and fit one chunk, at least
    /// one.
    pub(super) fn group(&self, plan: &Plan, end: usize) -> Group {
        let place = |exit: usize| self.model.layout.exit_head(plan.exits[exit].0);
        let (mut first, mut rows) = (end, 0);
        while first > 0 && place(first - 1) == place(end - 1) {
            rows += plan.scored[first - 1].len();
            if rows > self.chunk.rows() {
                break;
            }
            first -= 1;
        }
        Group { first: first.min(end - 1), end }
    }

    /// Writes the losses of a group's exits, and adds to the gradients of their head. The gradients of their
    /// hidden states wait in the chunk ([`Network::add_exit_gradient`]). Those of an exit that needs several
    /// chunks are added to the stream's here: such an exit is alone, and the backward has just come to its
    /// depth.
    pub(super) fn exits_backward(
        &mut self,
        call: Call<'_>,
        group: Group,
        gradients: &mut Parts<'_, '_>,
        losses: &mut [f64],
    ) {
        let Call { weights, batch, plan } = call;
        let Self { model, stream, d_stream, chunk, .. } = self;
        let len = batch.inputs.len() * model.config.hidden_size;
        let deepest = plan.exits[group.end - 1].0;
        let head = model.head(weights.floats, deepest);
        let places = model.layout.exit_head(deepest);
        let full = plan.exits.last().map_or(deepest, |&(exit_layer, _)| exit_layer);
        let teaching = plan.distillation.map(|Distillation { loss, .. }| Teaching {
            x: &stream[full][..len],
            head: model.head(weights.floats, full),
            loss,
        });
        let mut gradients = match model.layout.adapter(deepest) {
            Some(places) => {
                let [norm, down, up] = gradients.several(&places);
                Gradients { norm, lm_head: None, adapter: Some(adapter::Gradients { down, up }) }
            }
            None if model.layout.base_is_frozen() => {
                // It is the full model: only the others learn.
                let nats = chunk.nats(&stream[deepest][..len], batch.labels, head);
                losses[group.first] += nats / batch.labels.len() as f64;
                return;
            }
            None => {
                let [norm, lm_head] = gradients.two(&places);
                Gradients { norm, lm_head: Some(lm_head), adapter: None }
            }
        };
        let scored = |index: usize| {
            let ((exit_layer, weight), positions) = (plan.exits[index], plan.scored[index].as_slice());
            let weight = (f64::from(weight) / positions.len() as f64) as f32;
            let taught = plan.distillation.filter(|_| exit_layer < full);
            let share = taught.map_or(0.0, |distillation| distillation.share);
            Scored { x: &stream[exit_layer][..len], positions, weight, share }
        };
        let exits: Vec<_> = (group.first..group.end).map(scored).collect();
        let mut add = |index: usize, nats: f64| losses[index] += nats / plan.scored[index].len() as f64;
        match exits[..] {
            [alone] if alone.positions.len() > chunk.rows() => {
                for positions in alone.positions.chunks(chunk.rows()) {
                    let piece = [Scored { positions, ..alone }];
                    let nats = chunk.forward_backward(&piece, batch.labels, head, teaching, &mut gradients);
                    add(group.first, nats.sum());
                    chunk.add_input_gradient(0, positions, &mut d_stream[..len]);
                }
            }
            _ => {
                let nats = chunk.forward_backward(&exits, batch.labels, head, teaching, &mut gradients);
                nats.enumerate().for_each(|(index, nats)| add(group.first + index, nats));
            }
        }
    }

    /// Adds the gradient of exit number `index`'s hidden states to the stream's, unless that is done. In the
    /// chunk stand the gradients of the exits from number `first` on.
    pub(super) fn add_exit_gradient(&mut self, plan: &Plan, first: usize, index: usize, len: usize) {
        let positions = &plan.scored[index];
        if positions.len() <= self.chunk.rows() {
            let before = plan.scored[first..index].iter().map(Vec::len).sum();
            self.chunk.add_input_gradient(before, positions, &mut self.d_stream[..len]);
        }
    }
}
