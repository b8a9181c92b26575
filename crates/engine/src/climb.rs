//! Rows of many texts on their way up through the layers: those that stand at the same depth go on in one
//! call.

use crate::Result;
use crate::confident::Confident;
use crate::workspace::{Call, Timed, Workspace};
use offramp_model::{Batch, Hidden, KvCache, Llama};
use std::time::Instant;

/// The rows of one text that go up.
#[derive(Debug)]
pub(crate) struct Climber<'a> {
    pub(crate) cache: &'a mut KvCache,
    pub(crate) hidden: &'a mut Hidden,
    /// Layers that the rows have gone through.
    pub(crate) depth: &'a mut usize,
    /// Layers that they are to go through.
    pub(crate) to: usize,
    /// Where the one row may stop before.
    pub(crate) exits: Option<&'a mut Confident>,
}

impl Climber<'_> {
    fn goes_on(&self) -> bool {
        *self.depth < self.to
    }

    /// The depths at which this climber has to be looked at.
    fn stops(&self) -> impl Iterator<Item = usize> {
        let exits = self.exits.as_ref().map_or(&[][..], |confident| confident.exits());
        [self.to, *self.depth].into_iter().chain(exits.iter().copied())
    }
}

/// Moves all climbers to where they are to go. Layers are read once for all that go through them.
///
/// # Errors
/// If a cache, its pool or the memory has no room; then some climbers stand higher than before.
pub(crate) fn climb(model: &Llama, climbers: &mut [Climber<'_>], workspace: &mut Workspace) -> Result<()> {
    while let Some(from) = climbers.iter().filter(|c| c.goes_on()).map(|c| *c.depth).min() {
        let stops = climbers.iter().filter(|c| c.goes_on()).flat_map(Climber::stops);
        let until = stops.filter(|&stop| stop > from).min().unwrap_or(from);
        let mut here: Vec<_> = climbers.iter_mut().filter(|c| c.goes_on() && *c.depth == from).collect();
        for climber in &mut here {
            if let Some(confident) = &mut climber.exits {
                confident.fill_from(from, model, climber.cache, &mut workspace.scratch)?;
            }
        }
        let start = Instant::now();
        let rows = forward(model, from, until, &mut here, workspace)?;
        let call = Call::Layers(until - from);
        workspace.times.push(Timed { call, rows, seconds: start.elapsed().as_secs_f64() });
        here.iter_mut().for_each(|climber| *climber.depth = until);
        leave(model, until, &mut here, workspace);
    }
    Ok(())
}

/// Moves rows that stand at the same depth; how many there were.
fn forward(
    model: &Llama,
    from: usize,
    until: usize,
    climbers: &mut [&mut Climber<'_>],
    workspace: &mut Workspace,
) -> Result<usize> {
    let Workspace { scratch, rows, .. } = workspace;
    if let [climber] = climbers {
        let mut batch = Batch::one(climber.cache);
        model.forward(from..until, climber.hidden, &mut batch, scratch)?;
        return Ok(climber.hidden.tokens());
    }
    rows.clear();
    climbers.iter().for_each(|climber| rows.append(climber.hidden, 0..climber.hidden.tokens()));
    let mut batch = Batch::default();
    for climber in climbers.iter_mut() {
        batch.push(climber.cache, climber.hidden.tokens());
    }
    model.forward(from..until, rows, &mut batch, scratch)?;
    let mut first = 0;
    for climber in climbers {
        let tokens = first..first + climber.hidden.tokens();
        first = tokens.end;
        climber.hidden.assign(rows, tokens);
    }
    Ok(first)
}

/// Asks the head about the rows that may leave at `depth`; those that are sure go no further.
fn leave(model: &Llama, depth: usize, climbers: &mut [&mut Climber<'_>], workspace: &mut Workspace) {
    let asked = |climber: &Climber<'_>| {
        climber.goes_on()
            && climber.exits.as_ref().is_some_and(|confident| confident.exits().contains(&depth))
    };
    let mut asked: Vec<_> = climbers.iter_mut().filter(|climber| asked(climber)).collect();
    if asked.is_empty() {
        return;
    }
    let Workspace { scratch, rows, logits, .. } = workspace;
    rows.clear();
    asked.iter().for_each(|climber| rows.append(climber.hidden, 0..1));
    model.head(rows, 0..asked.len(), logits, scratch);
    let vocab = logits.len() / asked.len();
    for (climber, logits) in asked.iter_mut().zip(logits.chunks_exact(vocab)) {
        if let Some(confident) = &mut climber.exits
            && confident.leaves(depth, logits, climber.hidden)
        {
            climber.to = depth;
        }
    }
}
