//! How a model is made: a recipe and a prepared corpus become a checkpoint folder and a journal.
//!
//! Reading order, the way a step goes:
//!
//! 1. [`Recipe`]: everything that a run depends on, from one TOML file.
//! 2. [`parameters`]: all weights in one buffer; gradients and moments have the same layout.
//!    [`step_weights`]: what a step computes with.
//! 3. `ops/`: each operation's forward beside its backward. In a step, only they touch numbers.
//! 4. `layer`, `exit_head` and [`network`]: the operations in their order, forward and backward. [`dropout`]
//!    says which layers are skipped, [`early_exit`] the weight of each exit's loss.
//! 5. [`Optimizer`](optimizer::Optimizer) and [`Schedule`](schedule::Schedule): from gradients to weights.
//! 6. [`run`](run()): the loop around it all, its journal and its checkpoints.

mod averages;
mod corpus;
pub mod dropout;
pub mod early_exit;
mod error;
mod exit_head;
mod layer;
pub mod memory;
pub mod network;
mod ops;
pub mod optimizer;
pub mod parameters;
pub mod plan;
mod prepare;
pub mod profile;
pub mod recipe;
mod run;
pub mod schedule;
mod start;
pub mod step_weights;

pub use corpus::{RunCorpus, corpus, corpus_on};
pub use error::{Error, Result};
pub use prepare::prepare;
pub use recipe::Recipe;
pub use run::{Best, Event, Job, Summary, check_new, run, run_on};
pub use start::{check_tokenizer, tokenizer_named};
