//! offramp-text
