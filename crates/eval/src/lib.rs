//! offramp-eval
