//! What every exit says of a text, position by position: the state of each token is read by the one head
//! after each of some layers (as a logit lens, nostalgebraist 2020).

use crate::depth_reader::DepthReader;
use crate::logprobs::Logprobs;
use crate::workspace::Workspace;
use crate::{Error, Result};
use offramp_model::Llama;
use std::sync::Arc;

/// Positions of one step: a text of others that waits for it does not wait long.
const POSITIONS: usize = 16;

/// What exits say at one position, which is predicted from the tokens before it.
#[derive(Clone, Debug)]
pub struct ExitReading {
    /// The position, from 1 on.
    pub position: usize,
    /// The token that stands there; `None` after the last.
    pub token: Option<u32>,
    /// One for each exit, shallow exits first.
    pub exits: Vec<Logprobs>,
}

/// Reads a text at some exits, a few positions in each step.
#[derive(Debug)]
pub struct ExitReader {
    reader: DepthReader,
    exit_layers: Vec<usize>,
    top: usize,
    from: usize, // the first position that is read
}

impl ExitReader {
    /// For `tokens` from position `from` on, at `exit_layers`, with the `top` most likely tokens of each. It
    /// takes memory of its own for keys and values.
    ///
    /// # Errors
    /// If there is no token or no exit, one of them does not exist, they are more than the context holds, or
    /// there is no memory.
    pub fn new(
        model: &Arc<Llama>,
        tokens: &[u32],
        exit_layers: &[usize],
        top: usize,
        from: usize,
    ) -> Result<Self> {
        if exit_layers.is_empty() {
            return Err(Error::NoTokens);
        }
        exit_layers.iter().try_for_each(|&exit_layer| model.config().check_exit_layer(exit_layer))?;
        let mut exit_layers = exit_layers.to_vec();
        exit_layers.sort_unstable();
        exit_layers.dedup();
        Ok(Self { reader: DepthReader::new(model, tokens)?, exit_layers, top, from })
    }

    /// The exits, ascending.
    pub fn exit_layers(&self) -> &[usize] {
        &self.exit_layers
    }

    /// The next positions, of a few tokens; `None` once all tokens were run.
    ///
    /// # Errors
    /// If there is no memory, or logits are not finite.
    pub fn step(&mut self, workspace: &mut Workspace) -> Result<Option<Vec<ExitReading>>> {
        let positions = self.reader.ahead(POSITIONS);
        if positions.is_empty() {
            return Ok(None);
        }
        let (first, rows) = (positions.start, positions.len());
        let unread = self.from.saturating_sub(first + 1).min(rows);
        let reading = |row: usize| {
            let (position, exits) = (first + row + 1, Vec::with_capacity(self.exit_layers.len()));
            ExitReading { position, token: self.reader.tokens().get(position).copied(), exits }
        };
        let mut readings: Vec<ExitReading> = (unread..rows).map(reading).collect();
        let (model, top, mut buffer) = (Arc::clone(self.reader.model()), self.top, Vec::new());
        let Workspace { scratch, logits, .. } = workspace;
        self.reader.step(positions, &self.exit_layers, scratch, &mut |_, hidden, scratch| {
            if readings.is_empty() {
                return Ok(());
            }
            model.head(hidden, unread..rows, logits, scratch);
            let vocab = logits.len() / readings.len();
            for (reading, logits) in readings.iter_mut().zip(logits.chunks_exact(vocab)) {
                if logits.iter().any(|logit| !logit.is_finite()) {
                    return Err(Error::NotFinite { position: reading.position - 1 });
                }
                reading.exits.push(Logprobs::of(logits, reading.token, top, &mut buffer));
            }
            Ok(())
        })?;
        Ok(Some(readings))
    }
}
