//! How a model runs: sessions, exit layers, sampling, generation.
//!
//! Tokens are ids here; this room knows no text, no file and no network. It promises that a session's
//! logits depend on its tokens and its exit layer alone: not on how the tokens came in, nor on where
//! the exit layer stood before. A [`ConfidenceExit`] trades that for speed, and only as long as it is set.

mod chooser;
mod climb;
mod completion;
mod confidence;
mod confident;
mod constraint;
mod depth_reader;
mod exit_reader;
mod generate;
mod kept;
mod logprobs;
mod progress;
mod round;
mod sampler;
mod scheduler;
mod score;
mod session;
mod speculate;
mod step;
mod workspace;

pub use completion::{
    Completion, DRAFT_POSITIONS, GenerateOptions, NewToken, Origin, Statistics, StopReason,
};
pub use confidence::{ConfidenceExit, Depths};
pub use constraint::Constraint;
pub use depth_reader::{hidden_states, logits_at_exits};
pub use exit_reader::{ExitReader, ExitReading};
pub use generate::{Generation, generate};
pub use logprobs::Logprobs;
/// The memory's read bandwidth, which bounds decoding.
pub use offramp_kernels::bandwidth;
/// How many threads share the work.
pub use offramp_kernels::pool::{physical_cores, set_threads, threads};
pub use progress::check;
pub use sampler::{Sampler, SamplingOptions};
pub use scheduler::{Progressed, Request, Scheduler, SchedulerOptions, TextId};
pub use score::{TokenScore, argmax, gap, score};
pub use session::Session;
pub use speculate::{Adaptive, Chosen, Draft, Speculate, Speculation, UnknownSpeculation};
pub use workspace::Workspace;

/// The name of the instruction set in use.
pub fn kernels() -> &'static str {
    offramp_kernels::active().name
}

/// What can go wrong while a model runs.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model refused: an unknown token, an exit layer that does not exist.
    #[error(transparent)]
    Model(#[from] offramp_model::Error),
    /// More tokens than fit.
    #[error("{tokens} tokens do not fit the context of {context}: shorten the prompt")]
    ContextFull {
        /// Tokens that would stand in the session.
        tokens: usize,
        /// Tokens that fit.
        context: usize,
    },
    /// Nothing to predict from.
    #[error("the prompt holds no token: give at least one")]
    NoTokens,
    /// Sampling options that make no distribution.
    #[error("{option} is {found}: it must be {expected}")]
    Sampling {
        /// The option's name.
        option: &'static str,
        /// What was given.
        found: f32,
        /// What it may be.
        expected: &'static str,
    },
    /// A vocabulary of which nothing may be chosen.
    #[error("there is no token to choose from: the token limit must be 1 or more")]
    NoChoice,
    /// A constraint that nothing meets.
    #[error(
        "the constraint allows no token here: it may not fit this model's vocabulary or its ends of text"
    )]
    NothingAllowed,
    /// A draft head that belongs to another model than the one that decodes.
    #[error(
        "the draft head or the layers that draft are of another model: make them from the one that decodes"
    )]
    ForeignDraftHead,
    /// A copy that is too short for the draft.
    #[error("the draft takes {exit_layer} layers, and the copy that drafts has {layers}: copy more of them")]
    TooFewDraftLayers {
        /// Layers that the draft takes.
        exit_layer: usize,
        /// Layers of the copy.
        layers: usize,
    },
    /// Exits at which no token can leave.
    #[error(
        "the confidence exits are {exits:?}: give at least one, in ascending order, from 1 on and below the session's \
         depth of {depth}"
    )]
    ConfidenceExits {
        /// The exits that were given.
        exits: Vec<usize>,
        /// Layers that the session runs.
        depth: usize,
    },
    /// A threshold that nothing can be compared with.
    #[error("the confidence threshold is not a number: give 0 (always leave) to infinity (never)")]
    ConfidenceThreshold,
    /// Drafts are verified by the full model, a confidence exit does without it.
    #[error("a text cannot be drafted and left by confidence at once: turn off one of the two")]
    ConfidenceWithDrafts,
    /// A step of many texts failed.
    #[error(
        "the step that this text shared with others failed for lack of memory: try again with fewer texts"
    )]
    OthersFailed,
    /// The model's output is no number.
    #[error("the model's logits are not finite at position {position}: its weights are damaged or overflow")]
    NotFinite {
        /// The position whose logits were read.
        position: usize,
    },
}

/// What this room's functions return.
pub type Result<T> = std::result::Result<T, Error>;
