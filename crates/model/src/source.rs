//! Where a model's weights come from: a folder ([`Weights`](crate::Weights)), a caller, or a random
//! generator.

use crate::error::{Error, Result};
use crate::format::Format;
use crate::layout::{Layout, Values};
use crate::storage::{Mapped, Pages, Storage};
use crate::tensor::{TensorKind, TensorSpec};
use crate::ternary::Codes;
use bytemuck::Pod;
use offramp_kernels::strips::{STRIP, StripFormat};
use rand::rngs::ChaCha8Rng;
use rand::{Rng, SeedableRng};
use std::cell::RefCell;
use twox_hash::XxHash64;

/// Gives the weights of a model in any format.
pub(crate) trait Source {
    /// The format that a tensor gets if no other is asked for.
    ///
    /// # Errors
    /// If there is no such tensor.
    fn format(&self, spec: &TensorSpec) -> Result<Format>;

    /// Whether a tensor in its own format is read from a mapped file and takes no memory.
    fn is_mapped(&self, _spec: &TensorSpec) -> bool {
        false
    }

    /// A tensor as it lies in a file; none if it has to be made from its values.
    ///
    /// # Errors
    /// If it is not what `spec` says, or a value is not finite.
    fn mapped(&self, _spec: &TensorSpec) -> Result<Option<Mapped>> {
        Ok(None)
    }

    /// Writes a matrix into strips, with the very codes and scales that the source has; false if it has none
    /// that the format can have, and nothing is written.
    ///
    /// # Errors
    /// If the tensor is not what `spec` says, or a scale is not finite.
    fn recode(&self, _spec: &TensorSpec, _format: StripFormat, _out: &mut [u8]) -> Result<bool> {
        Ok(false)
    }

    /// A function that writes a tensor's values, a few rows at a time, on any thread.
    ///
    /// # Errors
    /// If the tensor is not what `spec` says.
    fn values(&self, spec: &TensorSpec) -> Result<Box<Values<'_>>>;

    /// A matrix in ternary codes: the source's own, or made from the values.
    ///
    /// # Errors
    /// As [`Source::values`] and the function that it returns; or if there is no memory for the codes.
    fn ternary(&self, spec: &TensorSpec) -> Result<Codes> {
        Codes::of(&*self.values(spec)?, spec)
    }
}

/// A tensor in `format`, whose elements in memory are `V`: mapped from its file, or made strip by strip.
///
/// # Errors
/// What the source returns, or if there is no memory for it.
pub(crate) fn storage<V: Pod>(source: &dyn Source, spec: &TensorSpec, format: Format) -> Result<Storage<V>> {
    if source.format(spec)? == format
        && let Some(storage) = source.mapped(spec)?.and_then(Storage::mapped)
    {
        return Ok(storage);
    }
    let layout = Layout::new(spec, format);
    let bytes = layout.checked_bytes(spec)?;
    let mut pages = Pages::new(bytes).map_err(|_| Error::memory(spec, bytes as u64))?;
    let recoded = format.strips().map(|strips| source.recode(spec, strips, pages.bytes_mut())).transpose()?;
    if recoded != Some(true) {
        layout.encode(&*source.values(spec)?, 0, pages.bytes_mut())?;
    }
    Ok(pages.into())
}

/// Values given by a caller.
pub(crate) struct Given<F>(RefCell<F>);

impl<F> Given<F> {
    pub(crate) fn new(take: F) -> Self {
        Self(RefCell::new(take))
    }
}

impl<F: FnMut(&TensorSpec) -> Result<Vec<f32>>> Source for Given<F> {
    fn format(&self, _spec: &TensorSpec) -> Result<Format> {
        Ok(Format::F32)
    }

    fn values(&self, spec: &TensorSpec) -> Result<Box<Values<'_>>> {
        let values = (self.0.borrow_mut())(spec)?;
        if values.len() != spec.len() {
            return Err(Error::wrong_length(spec, values.len()));
        }
        Ok(Box::new(move |first, out| {
            out.copy_from_slice(&values[first..][..out.len()]);
            Ok(())
        }))
    }
}

/// Uniform weights and biases of standard deviation 0.02, and norms of 1. The same seed gives the same
/// values, whatever the threads.
pub(crate) struct Random {
    pub(crate) seed: u64,
    pub(crate) embedding: Format,
    pub(crate) damped: Option<Damped>,
}

/// Layers that add less to the residual stream. The nearer `scale` is to 0, the more often the exit before
/// them predicts what the whole model predicts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Damped {
    /// The exit before these layers.
    pub exit_layer: usize,
    /// Their contribution is multiplied by this.
    pub scale: f32,
}

impl Random {
    /// The largest weight: √3 standard deviations of a uniform distribution.
    const LARGEST: f32 = 0.02 * 1.732_050_8;

    /// The largest weight of a tensor.
    fn largest(&self, name: &str) -> f32 {
        let adds = name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight");
        let layer = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse().ok());
        match (self.damped, layer) {
            (Some(Damped { exit_layer, scale }), Some(layer)) if adds && exit_layer <= layer => {
                scale * Self::LARGEST
            }
            _ => Self::LARGEST,
        }
    }
}

impl Source for Random {
    fn format(&self, spec: &TensorSpec) -> Result<Format> {
        Ok(if spec.is_embedding() { self.embedding } else { Format::F32 })
    }

    fn values(&self, spec: &TensorSpec) -> Result<Box<Values<'_>>> {
        let in_features = spec.shape.last().expect("a tensor has a shape");
        if spec.kind() == TensorKind::Norm {
            return Ok(Box::new(|_, out| {
                out.fill(1.0);
                Ok(())
            }));
        }
        let (seed, name, strip) =
            (self.seed, XxHash64::oneshot(0, spec.name.as_bytes()), STRIP * in_features);
        let largest = self.largest(&spec.name);
        Ok(Box::new(move |first, out| {
            for (index, out) in out.chunks_mut(strip).enumerate() {
                let mut key = [0; 32]; // each strip has a stream of its own
                for (part, number) in key.chunks_mut(8).zip([seed, name, (first / strip + index) as u64]) {
                    part.copy_from_slice(&number.to_le_bytes());
                }
                ChaCha8Rng::from_seed(key).fill_bytes(bytemuck::cast_slice_mut(out));
                for value in out {
                    *value = value.to_bits() as i32 as f32 * (largest / 2f32.powi(31));
                }
            }
            Ok(())
        }))
    }
}
