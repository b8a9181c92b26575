//! The model card: a `README.md` in the model's folder, or in one for a GGUF file. Every number in it was
//! measured, or read from a file.
//!
//! A [`Card`] holds what was found. A missing value is `None`, and the card then names the command that
//! measures it. The card is Markdown after a front matter for the Hugging Face Hub.

mod folder;
mod front_matter;
mod measured;
mod prose;
mod tables;
#[cfg(test)]
mod tests;

pub use folder::{CardFolder, CardWords};
pub use measured::{ExitSpeedFigures, Measured, Scores, SpeedFigures};

use crate::TrainingReport;
use crate::number::grouped;
use offramp_model::{Config, quoted};

/// The name of the card's plot of perplexity and speed over all exits.
pub const EXITS_PLOT: &str = "exits.svg";
/// The Python module for a Llama: an `AutoModelForCausalLM` with early exits.
const MODELING: &str = include_str!("card/modeling_early_exit.py");

/// The contents of a model's card.
#[derive(Clone, Debug)]
pub struct Card<'a> {
    /// The model's name.
    pub name: &'a str,
    /// The model's place in the usage section: a folder, or a name on the Hub.
    pub place: &'a str,
    /// The model's config.
    pub config: &'a Config,
    /// The formats in the weights' files, and their bytes.
    pub weights: (String, u64),
    /// Facts that cannot be measured, such as licence and training data.
    pub facts: Facts,
    /// What was measured.
    pub measured: Measured,
    /// The exit layers of the table.
    pub exits: &'a [usize],
    /// The training run, from its journal.
    pub training: Option<&'a TrainingReport>,
    /// The text of the training recipe.
    pub recipe: Option<&'a str>,
    /// What a model has that is a GGUF file.
    pub gguf: Option<GgufWords<'a>>,
}

/// What the card of a GGUF file says beside its numbers.
#[derive(Clone, Copy, Debug)]
pub struct GgufWords<'a> {
    /// The folder of the card.
    pub out: &'a str,
    /// The model that this one was made from, as the Hub names it.
    pub base_model: Option<&'a str>,
}

/// Facts that only the model's maker knows.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The licence's name on the Hub, `mit`.
    pub license: Option<String>,
    /// The training data, as the Hub names it.
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
             `offramp card`: every number below was measured by it or read from {}.\n",
            self.name,
            self.family(),
            grouped(self.config.parameter_count()),
            if self.gguf.is_some() { "the model's file" } else { "the files beside it" },
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

    /// The command that writes this card again, with `option`.
    fn command(&self, option: &str) -> String {
        let out = self.gguf.map_or(String::new(), |gguf| format!(" --out {}", quoted(gguf.out)));
        format!("`offramp card {}{out} {option}`", quoted(self.place))
    }

    /// Whether stock `transformers` loads it as one of its family.
    pub fn is_float(&self) -> bool {
        self.gguf.is_none() && self.config.quantization.is_none() && self.config.bit_linear.is_none()
    }
}

/// A Markdown table.
fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let rule = "|---".repeat(head.len()) + "|\n";
    line(&head) + &rule + &rows.iter().map(|row| line(row)).collect::<String>()
}
