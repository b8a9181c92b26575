//! Where a tensor's values lie: in memory, or in a mapped file.

mod map;
mod pages;

pub(crate) use map::Map;
pub(crate) use pages::Pages;

use bytemuck::Pod;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

/// The values of a tensor, `f32`, `bf16` or bytes. Clones share them.
#[derive(Clone, Debug)]
pub struct Storage<V> {
    place: Place,
    values: PhantomData<V>,
}

#[derive(Clone, Debug)]
enum Place {
    Mapped(Mapped),
    Owned(Arc<Pages>),
}

/// A part of a mapped file.
#[derive(Clone, Debug)]
pub(crate) struct Mapped {
    pub(crate) map: Arc<Map>,
    pub(crate) bytes: Range<usize>,
}

impl Mapped {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map.bytes()[self.bytes.clone()]
    }
}

impl<V: Pod> Storage<V> {
    /// A part of a mapped file as values, if it is aligned. safetensors are little-endian, as every machine
    /// this runs on.
    pub(crate) fn mapped(mapped: Mapped) -> Option<Self> {
        bytemuck::try_cast_slice::<u8, V>(mapped.bytes()).ok()?;
        Some(Self { place: Place::Mapped(mapped), values: PhantomData })
    }

    /// The values, row-major, or whole strips.
    pub fn as_slice(&self) -> &[V] {
        // Alignment and length were checked when this was made.
        bytemuck::cast_slice(match &self.place {
            Place::Mapped(mapped) => mapped.bytes(),
            Place::Owned(pages) => pages.bytes(),
        })
    }

    /// `len` copies of a value, in the same kind of memory as weights.
    ///
    /// # Errors
    /// If the system has no memory for them.
    pub fn filled(len: usize, value: V) -> std::io::Result<Self> {
        let mut pages = Pages::new(len.saturating_mul(size_of::<V>()))?;
        bytemuck::cast_slice_mut(pages.bytes_mut()).fill(value);
        Ok(pages.into())
    }

    /// Whether the values lie in a mapped file.
    pub fn is_mapped(&self) -> bool {
        matches!(self.place, Place::Mapped(_))
    }
}

impl<V: Pod> AsRef<[V]> for Storage<V> {
    fn as_ref(&self) -> &[V] {
        self.as_slice()
    }
}

impl<V: Pod> From<Pages> for Storage<V> {
    /// # Panics
    /// If the bytes are not whole values.
    fn from(pages: Pages) -> Self {
        assert!(pages.bytes().len().is_multiple_of(size_of::<V>()), "whole values");
        Self { place: Place::Owned(Arc::new(pages)), values: PhantomData }
    }
}
