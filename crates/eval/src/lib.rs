//! What a model is worth: perplexity, agreement and speed at every exit.
//!
//! The protocols are the project's measures (`docs/measures.md`). This room hands out numbers and
//! prints nothing.

pub mod card;
mod confidence;
mod data;
mod many_texts;
mod memory;
mod others;
mod perplexity;
mod smoothed;
mod speculation;
mod speed;
mod stability;
mod training;

pub use confidence::{Calibration, CalibrationOptions, ConfidenceScore, ExitShare, calibrate};
pub use data::open_data;
pub use many_texts::{ManyTextsOptions, ManyTextsReport, ManyTextsSpeed, many_texts};
pub use memory::{Memory, memory, peak_memory};
pub use perplexity::{ExitScore, PerplexityOptions, evaluate, perplexity};
pub use smoothed::Smoothed;
pub use speculation::{
    Agreeing, AutoPoint, ChosenExit, Difference, MakeHead, SweepOptions, SweepPoint, SweepReport, Texts,
    VerifyReport, Way, agreeing, openings, sweep, verify,
};
pub use speed::{
    DecodeSample, ExitSpeed, MemoryProbe, MemoryUse, SpeedOptions, SpeedReport, Spread, VerifySample,
    memory_probe, speed,
};
pub use stability::{GradNorm, Stability};
pub use training::{Curves, TrainingReport};

/// What can go wrong while measuring.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The model refused.
    #[error(transparent)]
    Model(#[from] offramp_model::Error),
    /// The session refused.
    #[error(transparent)]
    Engine(#[from] offramp_engine::Error),
    /// The text could not be read.
    #[error(transparent)]
    Text(#[from] offramp_text::Error),
    /// The model with its tokenizer could not be had.
    #[error(transparent)]
    Pipeline(#[from] offramp_pipeline::Error),
    /// A prepared corpus of another tokenizer.
    #[error(
        "{path} was prepared with another tokenizer than the model's: give the stories themselves, or prepare them with \
         the model's tokenizer.json",
        path = path.display()
    )]
    Tokenizer {
        /// The prepared folder.
        path: std::path::PathBuf,
    },
    /// The tokens do not belong to this model.
    #[error(
        "the data was prepared for a vocabulary of {data}, the model has {model}: prepare it with the model's tokenizer.json"
    )]
    Vocabulary {
        /// The data's vocabulary.
        data: usize,
        /// The model's vocabulary.
        model: usize,
    },
    /// Nothing to check a threshold on.
    #[error(
        "calibration chooses a threshold on one window of {context} tokens and checks it on another: give more text than \
         {tokens} tokens, or a shorter context"
    )]
    TooLittleText {
        /// Tokens that there are, or that were asked for.
        tokens: u64,
        /// Tokens of a window.
        context: usize,
    },
    /// An agreement that no threshold has.
    #[error(
        "an agreement of {0}: it must be above 0 and at most 1, the share of tokens that are to stay the same"
    )]
    Agreement(f64),
    /// Options that measure nothing.
    #[error("{0}")]
    Options(String),
}

/// What measuring returns.
pub type Result<T> = std::result::Result<T, Error>;
