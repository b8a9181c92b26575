//! offramp-model
