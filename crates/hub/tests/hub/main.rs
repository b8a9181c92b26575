//! What a download promises, against a hub that does everything wrong.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

mod broken;
mod cache;
mod hostile;
mod mock;
mod place;
