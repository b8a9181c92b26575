//! The journal of a training run.
