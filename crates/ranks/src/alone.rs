//! A process alone.

use crate::engine::Engine;
use std::ops::Range;
use std::process;

/// The only rank of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alone;

impl Engine for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn all_to_all(&mut self, send: &[f32], to: &[Range<usize>], received: &mut [f32]) {
        received.copy_from_slice(&send[to[0].clone()]);
    }

    fn all_gather(&mut self, _values: &mut [f32], _from: &[Range<usize>]) {}

    fn broadcast(&mut self, _root: usize, _values: &mut [f32]) {}

    fn gather(&mut self, values: &[f64], all: &mut [f64]) {
        all.copy_from_slice(values);
    }

    fn abort(&self, code: i32) -> ! {
        process::exit(code)
    }

    fn name(&self) -> String {
        "one process".to_owned()
    }
}
