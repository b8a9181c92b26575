//! Muon for all matrices of the layers: threads share a large matrix, and each takes whole small ones.

use crate::ops::muon::{Parameter, Scratch, Update, step};
use crate::parameters::Layout;
use offramp_kernels::gemm::Threads;
use offramp_kernels::pool::threads;
use offramp_kernels::rayon::prelude::*;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// A matrix of more values is shared by all threads.
const SMALL: usize = 1 << 18;

/// A matrix of a layer, and where it stands in the buffer of weights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    rows: usize,
    cols: usize,
    pub(super) range: Range<usize>,
    momentum: usize, // where it begins in the buffer of moments
}

impl Place {
    /// The same, whose momentum begins at `momentum`.
    pub(super) fn with_momentum(self, momentum: usize) -> Self {
        Self { momentum, ..self }
    }
}

/// The matrices of the layers that stand at value `first` or after it, in order.
pub(super) fn matrices(layout: &Layout, first: usize) -> impl Iterator<Item = Place> {
    let layers = layout.all_layers();
    let inside =
        move |range: &Range<usize>| range.start >= layers.start.max(first) && range.end <= layers.end;
    layout.tensors().filter_map(move |(spec, range)| match *spec.shape {
        [rows, cols] if inside(&range) => Some(Place { rows, cols, momentum: range.start, range }),
        _ => None,
    })
}

/// Scratch for one large matrix, and for as many small ones as there are threads.
#[derive(Debug)]
pub(super) struct Muon {
    large: Scratch,
    small: Mutex<Vec<Scratch>>,
    small_sizes: Sizes,
}

/// The most values of a matrix, and the longest of their shorter sides.
#[derive(Clone, Copy, Debug, Default)]
struct Sizes {
    values: usize,
    side: usize,
}

impl Muon {
    /// Scratch for the matrices of a layout.
    pub(super) fn new(layout: &Layout) -> Self {
        let sizes = |large: bool| {
            let some = matrices(layout, 0).filter(move |place| (place.range.len() > SMALL) == large);
            some.fold(Sizes::default(), |most, place| Sizes {
                values: most.values.max(place.range.len()),
                side: most.side.max(place.rows.min(place.cols)),
            })
        };
        let scratch = |sizes: Sizes| Scratch::new(sizes.values, sizes.side);
        let small_sizes = sizes(false);
        let small = (0..threads()).map(|_| scratch(small_sizes)).collect();
        Self { large: scratch(sizes(true)), small: Mutex::new(small), small_sizes }
    }

    /// One update of some matrices, in order. They stand at the same places in `weights` and `gradients`.
    pub(super) fn step(
        &mut self,
        update: &Update,
        places: impl Iterator<Item = Place>,
        mut weights: &mut [f32],
        gradients: &[f32],
        mut momentum: &mut [f32],
    ) {
        let (mut end, mut moments_end) = (0, 0);
        let parameters = places.map(|Place { rows, cols, range, momentum: start }| {
            let weights = cut(&mut weights, range.start - end, range.len());
            let momentum = cut(&mut momentum, start - moments_end, range.len());
            (end, moments_end) = (range.end, start + range.len());
            Parameter { rows, cols, weights, gradients: &gradients[range], momentum }
        });
        let (large, small): (Vec<_>, Vec<_>) =
            parameters.partition(|parameter| parameter.weights.len() > SMALL);
        for parameter in large {
            step(update, parameter, &mut self.large, Threads::All);
        }
        let (free, sizes) = (&self.small, self.small_sizes);
        small.into_par_iter().with_max_len(1).for_each(|parameter| {
            let held = free.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut scratch = held.unwrap_or_else(|| Scratch::new(sizes.values, sizes.side));
            step(update, parameter, &mut scratch, Threads::One);
            free.lock().unwrap_or_else(PoisonError::into_inner).push(scratch);
        });
    }
}

/// The `len` values after the next `skipped`, taken from the front of `rest`.
fn cut<'a>(rest: &mut &'a mut [f32], skipped: usize, len: usize) -> &'a mut [f32] {
    rest.split_off_mut(..skipped).expect("the layout is as long as its buffers");
    rest.split_off_mut(..len).expect("the layout is as long as its buffers")
}
