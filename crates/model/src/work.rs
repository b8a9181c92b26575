//! Bytes read and operations: what something costs, whatever the machine.

use std::ops::{AddAssign, Sub};

/// Bytes of weights, keys and values that are read, and operations (a multiplication and an addition are two)
/// of the products and of attention; what is done once a number (norms, activations, rotations) is not
/// counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Bytes read: weights once a call, however many rows share it.
    pub bytes: u64,
    /// Operations, which every row takes for itself.
    pub operations: u64,
}

impl Work {
    /// The larger of its two shares in `whole`.
    pub fn share(&self, whole: &Self) -> f64 {
        let bytes = self.bytes as f64 / whole.bytes.max(1) as f64;
        bytes.max(self.operations as f64 / whole.operations.max(1) as f64)
    }
}

impl AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.operations += other.operations;
    }
}

impl Sub for Work {
    type Output = Self;

    /// What is left beyond `other`, and nothing where that is more.
    fn sub(self, other: Self) -> Self {
        Self {
            bytes: self.bytes.saturating_sub(other.bytes),
            operations: self.operations.saturating_sub(other.operations),
        }
    }
}
