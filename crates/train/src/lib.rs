//! offramp-train
