//! Measures what a model is worth: perplexity, agreement and speed at every exit.
//!
//! `docs/measures.md` defines the measures. This crate returns numbers and prints nothing.

pub mod card;
mod confidence;
mod data;
mod many_texts;
mod memory;
pub mod number;
mod others;
mod perplexity;
pub mod plot;
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
pub use speculation::{
    Agreeing, AgreeingOptions, AutoPoint, ChosenExit, Difference, MakeHead, NamedSpeculation, SweepOptions,
    SweepPoint, SweepReport, Texts, Verdict, VerifyReport, agreeing, openings, sweep, swept_exits, verify,
};
pub use speed::{
    DecodeSample, ExitSpeed, MemoryProbe, MemoryUse, SpeedOptions, SpeedReport, Spread, VerifySample,
    memory_probe, speed,
};
pub use stability::{GradNorm, Stability};
pub use training::{Curves, TrainingReport};

/// An error while measuring.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An error of the model.
    #[error(transparent)]
    Model(#[from] offramp_model::Error),
    /// An error of the session.
    #[error(transparent)]
    Engine(#[from] offramp_engine::Error),
    /// The text could not be read.
    #[error(transparent)]
    Text(#[from] offramp_text::Error),
    /// The model with its tokenizer could not be opened.
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
    /// The tokens were made for another vocabulary.
    #[error(
        "the data was prepared for a vocabulary of {data}, the model has {model}: prepare it with the model's tokenizer.json"
    )]
    Vocabulary {
        /// The data's vocabulary.
        data: usize,
        /// The model's vocabulary.
        model: usize,
    },
    /// Too little text to choose a threshold and to check it.
    #[error(
        "calibration chooses a threshold on one window of {context} tokens and checks it on another: give more text than \
         {tokens} tokens, or a shorter context"
    )]
    TooLittleText {
        /// The tokens of the text, or the limit that was given.
        tokens: u64,
        /// The tokens of a window.
        context: usize,
    },
    /// An agreement that no threshold can have.
    #[error(
        "an agreement of {0}: it must be above 0 and at most 1, the share of tokens that are to stay the same"
    )]
    Agreement(f64),
    /// Something that cannot be drawn or written down.
    #[error("{0}")]
    Drawing(String),
    /// Invalid options.
    #[error("{0}")]
    Options(String),
}

/// The result of this crate's functions.
pub type Result<T> = std::result::Result<T, Error>;
