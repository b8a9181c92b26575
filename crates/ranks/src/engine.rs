//! What an engine has to do: the shortest list that training can do with.

use std::fmt::Debug;
use std::ops::Range;

/// One process of a run, as a library connects it to the others.
///
/// Every function but [`Engine::abort`] is collective: all ranks call it, in the same order and with the same
/// sizes. A rank that cannot go on calls `abort`, which ends the others too.
pub trait Engine: Debug + Send {
    /// Which process this is, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sends `send[to[r]]` to each rank r. What rank r sent lands at `received[r * n..][..n]`, where n is the
    /// length of `to[rank]`: each rank says how much it wants, and all say the same.
    ///
    /// # Shapes
    /// `to`: `[size]`, `received`: `[size, n]`
    fn all_to_all(&mut self, send: &[f32], to: &[Range<usize>], received: &mut [f32]);

    /// Gives every rank `values[from[r]]` of each rank r, in the same place.
    ///
    /// # Shapes
    /// `from`: `[size]`, none of which overlap
    fn all_gather(&mut self, values: &mut [f32], from: &[Range<usize>]);

    /// Gives every rank the values of `root`.
    fn broadcast(&mut self, root: usize, values: &mut [f32]);

    /// Gives every rank the values of all, in their order.
    ///
    /// # Shapes
    /// `all`: `[size, values.len()]`
    fn gather(&mut self, values: &[f64], all: &mut [f64]);

    /// Ends the processes of all ranks.
    fn abort(&self, code: i32) -> !;

    /// The library and its version, in one line.
    fn name(&self) -> String;
}
