//! What the command promises, seen from outside: the process, its exit code, its two streams, its files.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

#[path = "command/card.rs"]
mod card;
#[path = "command/documents.rs"]
mod documents;
#[path = "command/folders.rs"]
mod folders;
#[path = "command/formats.rs"]
mod formats;
#[path = "command/interrupted.rs"]
mod interrupted;
#[path = "command/killed.rs"]
mod killed;
#[path = "command/mistakes.rs"]
mod mistakes;
#[path = "command/place.rs"]
mod place;
#[path = "command/speculation.rs"]
mod speculation;
#[path = "command/way.rs"]
mod way;
