//! The model card: a folder's `README.md`, of which every number was measured or read.
//!
//! A [`Card`] holds what was found; what was not found is `None`, and the card says what to run instead of a
//! number. It is Markdown behind a front matter that the Hugging Face Hub reads.

mod front_matter;
mod measured;
mod prose;
mod tables;
#[cfg(test)]
mod tests;

pub use measured::{ExitSpeedFigures, Measured, Scores, SpeedFigures};

use crate::TrainingReport;
use offramp_model::{Config, quoted};

/// The name of the card's plot of perplexity and speed over all exits.
pub const EXITS_PLOT: &str = "exits.svg";
/// What runs a Llama in Python: an `AutoModelForCausalLM` that can be left early.
const MODELING: &str = include_str!("card/modeling_early_exit.py");

/// What a model's card is made of.
#[derive(Clone, Debug)]
pub struct Card<'a> {
    /// The model's name.
    pub name: &'a str,
    /// Where the usage section finds it: a folder, or a name on the Hub.
    pub place: &'a str,
    /// What the model is.
    pub config: &'a Config,
    /// What its weights' files hold, and their bytes.
    pub weights: (String, u64),
    /// What nobody can measure: where it may be used, what it has learnt from.
    pub facts: Facts,
    /// What was measured.
    pub measured: Measured,
    /// Exit layers of the table, of those measured.
    pub exits: &'a [usize],
    /// What the journal says of its training.
    pub training: Option<&'a TrainingReport>,
    /// The recipe of its training, as it stands.
    pub recipe: Option<&'a str>,
}

/// What only its maker can say.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The licence's name on the Hub, `mit`.
    pub license: Option<String>,
    /// What it has learnt from, as the Hub names it.
    pub dataset: Option<String>,
    /// The language of its text, `en`.
    pub language: Option<String>,
}

impl Card<'_> {
    /// The text of `README.md`.
    pub fn markdown(&self) -> String {
        let sections = [
            self.title(),
            tables::exits(self),
            prose::usage(self),
            tables::architecture(self),
            tables::training(self),
            tables::stability(self),
            prose::limitations(self),
            prose::citations(self),
        ];
        front_matter::yaml(self) + "\n" + &sections.join("\n")
    }

    fn title(&self) -> String {
        let Config { num_hidden_layers: layers, .. } = *self.config;
        format!(
            "# {}\n\nA {} of {layers} layers and {} parameters that can be left early. `exit_layer = E` runs the \
             first E layers; the one final norm and LM head read what is there, at every depth. Written by \
             `offramp card`: every number below was measured by it or read from the files beside it.\n",
            self.name,
            self.family(),
            grouped(self.config.parameter_count()),
        )
    }

    /// The family, as `transformers` spells it in its class.
    fn family(&self) -> &'static str {
        self.config.family.model_type.architecture().trim_end_matches("ForCausalLM")
    }

    /// The class that adds `set_exit_layer` in Python, and the code of it.
    pub fn modeling(&self) -> (String, String) {
        let architecture = self.config.family.model_type.architecture();
        (format!("EarlyExit{architecture}"), MODELING.replace("LlamaForCausalLM", architecture))
    }

    /// The command that makes this card with what it lacks.
    fn command(&self, option: &str) -> String {
        format!("`offramp card {} {option}`", quoted(self.place))
    }

    /// Whether stock `transformers` loads it as one of its family.
    pub fn is_float(&self) -> bool {
        self.config.quantization.is_none() && self.config.bit_linear.is_none()
    }
}

/// 1061591040 as 1,061,591,040.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group));
    groups.collect::<Vec<_>>().join(",")
}

/// A Markdown table.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule = "|---".repeat(head.len()) + "|\n";
    line(&head) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
}
