//! offramp-engine
