//! Attention against its formula in `f64`, and the promise that nobody else's tokens change it.
