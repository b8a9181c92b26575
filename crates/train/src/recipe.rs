//! A recipe: everything that one training run depends on, in one TOML file.
//!
//! Every key has a default, and the defaults are the model card's (`recipes/llama3-earlyexit.toml` writes
//! them all out). Only `[data]` is needed. An unknown key is an error that names the nearest key. The fields
//! say what the keys mean; they have the keys' names.

mod check;
mod config;
mod difference;
mod early_exit;
mod layer_dropout;
mod load;
mod model_keys;
mod optimizer;
mod paths;
mod read;
mod sections;
#[cfg(test)]
mod tests;
mod whole;

pub(crate) use difference::Difference;
pub use early_exit::{Curriculum, EarlyExitKeys, ExitWeights};
pub use layer_dropout::{DropoutNormalize, DropoutShape, DropoutTime, LayerDropoutKeys};
pub use model_keys::{LowBit, ModelKeys, ModelTypeKey};
pub(crate) use optimizer::LAST_INT4_FROM;
pub use optimizer::{Matrices, OptimizerKeys, ScheduleKeys};
pub use paths::Paths;
pub use sections::{
    AverageKeys, CheckpointKeys, DataKeys, Precision, Shuffle, StartKeys, Trained, TrainingKeys,
    ValidationKeys,
};
pub(crate) use whole::Adapters;
pub use whole::Recipe;
