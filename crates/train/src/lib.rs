//! How a model is made.

pub mod network;
pub mod ops;
pub mod parameters;
