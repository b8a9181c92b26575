//! Where a tensor's values live.

use super::map::Map;
use offramp_kernels::rayon::prelude::*;
use std::ops::Range;
use std::sync::Arc;

/// The `f32` values of a tensor: mapped from a file or in memory. Cloning shares them.
#[derive(Clone, Debug)]
pub struct F32Storage(Place);

#[derive(Clone, Debug)]
enum Place {
    Mapped { map: Arc<Map>, bytes: Range<usize> },
    Owned(Arc<Vec<f32>>),
}

/// Values that one thread looks at before it asks for more.
const CHUNK: usize = 1 << 16;

impl F32Storage {
    /// `bytes` of `map` as they stand, if they are aligned for `f32`; little-endian, as safetensors is.
    pub(super) fn mapped(map: &Arc<Map>, bytes: Range<usize>) -> Option<Self> {
        bytemuck::try_cast_slice::<u8, f32>(&map.bytes()[bytes.clone()]).ok()?;
        Some(Self(Place::Mapped { map: Arc::clone(map), bytes }))
    }

    /// The values, row-major.
    pub fn as_slice(&self) -> &[f32] {
        match &self.0 {
            // Alignment and length were checked when this was made.
            Place::Mapped { map, bytes } => bytemuck::cast_slice(&map.bytes()[bytes.clone()]),
            Place::Owned(values) => values,
        }
    }

    /// Whether the values are read from a file as they are needed.
    pub fn is_mapped(&self) -> bool {
        matches!(self.0, Place::Mapped { .. })
    }
}

/// The first value that is NaN or infinite, and its index.
pub(super) fn first_not_finite(values: &[f32]) -> Option<(usize, f32)> {
    // Without a branch per value, so that it runs at the speed of memory.
    let bad = |chunk: &[f32]| chunk.iter().fold(false, |bad, value| bad | !value.is_finite());
    let chunk = values.par_chunks(CHUNK).position_first(bad)?;
    let start = chunk * CHUNK;
    let offset = values[start..].iter().position(|value| !value.is_finite())?;
    Some((start + offset, values[start + offset]))
}

impl From<Vec<f32>> for F32Storage {
    fn from(values: Vec<f32>) -> Self {
        Self(Place::Owned(Arc::new(values)))
    }
}
