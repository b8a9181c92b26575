//! offramp-kernels
