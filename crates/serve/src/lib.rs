//! An OpenAI-compatible server for models with early exits.
//!
//! Handlers read requests and write replies. One thread runs the model: it takes one step of all texts at a
//! time and sends each text's new tokens to the handler that waits for them. What a text becomes does not
//! depend on the texts beside it (`offramp_engine::Scheduler`), so that an answer does not depend on the
//! load.
//!
//! [`serve`] listens until its caller says stop. It prints nothing.

mod agreements;
mod answers;
mod app;
mod body;
mod chat;
mod completions;
mod error;
mod exits;
mod fields;
mod format;
mod guard;
mod health;
mod listener;
mod logprobs;
mod metrics;
mod models;
mod openapi;
mod page;
mod responses;
mod sse;
mod state;
mod tokens;
mod tools;
mod usage;
mod worker;

pub use agreements::Calibrate;
pub use guard::Access;
pub use listener::{ServeOptions, Served, serve};

use std::io;

/// What keeps a server from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model, its chat template or its memory.
    #[error(transparent)]
    Pipeline(#[from] offramp_pipeline::Error),
    /// The address is not to be had.
    #[error(
        "cannot listen on {address}: {source}: choose another with --host and --port (--port 0 takes a free one)"
    )]
    Listen {
        /// Host and port.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The runtime.
    #[error("cannot start the server's threads: {0}")]
    Thread(io::Error),
    /// The model's thread ended before it began.
    #[error("the model's thread ended while it started")]
    NoWorker,
    /// A bound in which not even one text fits.
    #[error(
        "--memory {memory} holds {positions} positions of keys and values, and one block takes {block}: give at least \
         {least}"
    )]
    TooLittleMemory {
        /// Bytes that were given.
        memory: u64,
        /// Positions that fit.
        positions: usize,
        /// Positions of a block.
        block: usize,
        /// Bytes of a block.
        least: u64,
    },
    /// A context that the model does not have.
    #[error("--context {given} is more than the model's {context}: give at most as much")]
    Context {
        /// What was given.
        given: usize,
        /// What the model has.
        context: usize,
    },
}

/// What this room's functions return.
pub type Result<T> = std::result::Result<T, Error>;
