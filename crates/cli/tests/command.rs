//! Tests of the command from outside: the process, its exit code, its two streams, its files.

#![allow(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

#[path = "command/card.rs"]
mod card;
#[path = "command/chat.rs"]
mod chat;
#[cfg(target_os = "linux")]
#[path = "command/client.rs"]
mod client;
#[cfg(target_os = "linux")]
#[path = "command/conversations.rs"]
mod conversations;
#[path = "command/data.rs"]
mod data;
#[path = "command/documents.rs"]
mod documents;
#[cfg(target_os = "linux")]
#[path = "command/fleet.rs"]
mod fleet;
#[path = "command/folders.rs"]
mod folders;
#[path = "command/formats.rs"]
mod formats;
#[path = "command/hub.rs"]
mod hub;
#[path = "command/interrupted.rs"]
mod interrupted;
#[path = "command/killed.rs"]
mod killed;
#[path = "command/memory.rs"]
mod memory;
#[path = "command/mistakes.rs"]
mod mistakes;
#[path = "../../hub/tests/hub/mock.rs"]
mod mock_hub;
#[cfg(target_os = "linux")]
#[path = "command/patience.rs"]
mod patience;
#[path = "command/place.rs"]
mod place;
#[path = "command/prompts.rs"]
mod prompts;
#[path = "command/ranks.rs"]
mod ranks;
#[cfg(target_os = "linux")]
#[path = "command/replicas.rs"]
mod replicas;
#[path = "command/resumed.rs"]
mod resumed;
#[cfg(target_os = "linux")]
#[path = "command/serve.rs"]
mod serve;
#[path = "command/speculation.rs"]
mod speculation;
#[cfg(target_os = "linux")]
#[path = "command/streams.rs"]
mod streams;
#[cfg(target_os = "linux")]
#[path = "command/told_to_end.rs"]
mod told_to_end;
#[path = "command/way.rs"]
mod way;
