//! Drafts within a session: the first layers run ahead over a few tokens, and the rest follows in one call.

use super::Session;
use crate::{Error, Result};
use offramp_model::{DraftHead, Hidden};

/// The tokens of a draft, at the depth that all of them have reached.
#[derive(Debug)]
pub(super) struct Ahead {
    hidden: Hidden,
    depth: usize,
    probe: Option<usize>, // a depth at which they are kept too
    probed: Hidden,
}

impl Ahead {
    pub(super) fn new(hidden: Hidden) -> Self {
        Self { probed: hidden.clone(), hidden, depth: 0, probe: None }
    }
}

impl Session<'_> {
    /// Begins a draft by the first `draft_layer` layers, at most as many as the session runs; `probe` is a depth above
    /// 0 at which somebody wants to see its tokens. All tokens so far must have been run at the session's depth.
    pub(crate) fn begin_draft(&mut self, draft_layer: usize, probe: Option<usize>) -> Result<()> {
        self.model.config().check_exit_layer(draft_layer)?;
        let ahead = &mut self.ahead;
        ahead.depth = draft_layer.min(self.exit_layer);
        ahead.probe = probe.filter(|&probe| probe <= self.exit_layer);
        ahead.hidden.clear();
        ahead.probed.clear();
        Ok(())
    }

    /// Appends a token to the draft and runs it through the layers that draft. Where that fails, the token is none of
    /// the session's, and the draft is of no more use.
    pub(crate) fn extend_draft(&mut self, token: u32) -> Result<()> {
        let before = self.tokens.len();
        if before == self.capacity() {
            return Err(Error::ContextFull { tokens: before + 1, context: self.capacity() });
        }
        if let Err(error) = self.run_ahead(token) {
            self.cut(before); // the layers below the one that failed have seen it
            return Err(error);
        }
        self.work += self.model.forward_work(0..self.ahead.depth, 1, before);
        self.tokens.push(token);
        Ok(())
    }

    fn run_ahead(&mut self, token: u32) -> Result<()> {
        let Self { model, hidden, cache, ahead, .. } = self;
        model.embed(&[token], hidden)?;
        let below = ahead.probe.filter(|&probe| probe <= ahead.depth).unwrap_or(0);
        model.forward(0..below, hidden, cache)?;
        if below > 0 {
            ahead.probed.append(hidden);
        }
        model.forward(below..ahead.depth, hidden, cache)?;
        ahead.hidden.append(hidden);
        Ok(())
    }

    /// Computes the logits after the draft's newest token at the depth that drafts, `[vocab]`.
    pub(crate) fn draft_logits(&mut self, head: Option<&DraftHead>) {
        match head {
            Some(head) => self.model.draft_logits(head, &mut self.hidden, 0..1, &mut self.logits),
            None => self.model.head(&mut self.hidden, 0..1, &mut self.logits),
        }
        self.work += self.model.head_work(head, 1);
    }

    /// Runs all tokens of the draft up to `depth`.
    fn raise(&mut self, depth: usize) -> Result<()> {
        let (rows, ahead) = (self.draft_len(), &mut self.ahead);
        let layers = ahead.depth..depth.max(ahead.depth);
        self.model.forward(layers.clone(), &mut ahead.hidden, &mut self.cache)?;
        ahead.depth = layers.end;
        self.work += self.model.forward_work(layers, rows, self.tokens.len() - rows);
        Ok(())
    }

    /// Computes the logits after each of the draft's tokens at the depth that was to be probed, `[tokens, vocab]`, by the
    /// head that drafts; the tokens are run up to there if they have not been.
    pub(crate) fn probe_logits(&mut self, head: Option<&DraftHead>) -> Result<()> {
        if self.ahead.probed.tokens() == 0
            && let Some(probe) = self.ahead.probe
        {
            self.raise(probe)?;
            self.ahead.probed.append(&self.ahead.hidden);
        }
        let (rows, probed) = (self.draft_len(), &mut self.ahead.probed);
        match head {
            Some(head) => self.model.draft_logits(head, probed, 0..rows, &mut self.logits),
            None => self.model.head(probed, 0..rows, &mut self.logits),
        }
        self.work += self.model.head_work(head, rows);
        Ok(())
    }

    /// Runs the remaining layers over the whole draft.
    pub(crate) fn verify_layers(&mut self) -> Result<()> {
        self.raise(self.exit_layer)
    }

    /// Computes the full model's logits after each of the draft's tokens, `[tokens, vocab]`.
    pub(crate) fn verify_logits(&mut self) {
        let rows = self.draft_len();
        self.model.head(&mut self.ahead.hidden, 0..rows, &mut self.logits);
        self.work += self.model.head_work(None, rows);
    }

    /// Layers that the draft has yet to go through.
    pub(crate) fn layers_above(&self) -> usize {
        self.exit_layer - self.ahead.depth
    }

    /// Tokens in the draft.
    pub(crate) fn draft_len(&self) -> usize {
        self.ahead.hidden.tokens()
    }
}
