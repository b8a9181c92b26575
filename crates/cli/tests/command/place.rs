//! A folder with stories and a recipe, and functions that run the command in it.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Layers of the model that [`RECIPE`] makes.
pub(crate) const LAYERS: usize = 4;

/// A model so small that a step takes a millisecond.
const RECIPE: &str = "
[data]
corpus = \"corpus\"
[model]
num_hidden_layers = 4
hidden_size = 16
intermediate_size = 32
num_attention_heads = 4
num_key_value_heads = 2
max_position_embeddings = 64
[training]
steps = 30
batch_size = 2
accumulation = 1
sequence_length = 32
[schedule]
warmup_steps = 5
[validation]
every = 10
[checkpoint]
every = 10
";

pub(crate) struct Place(TempDir);

/// The output of a run of the command.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    /// An empty folder.
    pub(crate) fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Stories, `recipe.toml`, and the stories prepared as `corpus/`.
    pub(crate) fn new() -> Self {
        let place = Self::empty();
        let story = |i: usize| format!("The heron number {i} caught {} fish and slept. ¡Olé!", i * i % 37);
        let stories = |count: usize| (0..count).map(story).collect::<Vec<_>>().join("\n<|endoftext|>\n");
        place.write("train.txt", stories(150));
        place.write("valid.txt", stories(11));
        place.write("recipe.toml", RECIPE);
        place.good(&[
            "prepare",
            "train.txt",
            "--valid",
            "valid.txt",
            "--vocab-size",
            "300",
            "--out",
            "corpus",
        ]);
        place
    }

    /// The same with the recipe's model in `run/`.
    pub(crate) fn trained() -> Self {
        let place = Self::new();
        place.good(&["train", "recipe.toml", "--out", "run"]);
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), contents).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// The recipe with `from` replaced, as `name`.
    pub(crate) fn recipe(&self, name: &str, from: &str, to: &str) {
        assert!(RECIPE.contains(from), "{from}");
        self.write(name, RECIPE.replace(from, to));
    }

    /// `offramp` with these arguments, in this folder.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_offramp"));
        command.args(arguments).current_dir(self.0.path()).stdin(Stdio::null());
        command.env_remove("OFFRAMP_KERNELS").env_remove("RUST_BACKTRACE");
        // No test asks a hub, or looks into anybody's cache, unless it says so.
        command.env("HF_HUB_OFFLINE", "1").env("HF_HOME", self.path("hf")).env_remove("HF_TOKEN");
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(self.command(arguments).output().unwrap())
    }

    /// Runs a command that must succeed, and returns its stdout.
    #[track_caller]
    pub(crate) fn good(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.stderr);
        ran.stdout
    }

    /// Runs a command that must succeed with `--json`, and returns the value.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let stdout = self.good(&[arguments, &["--json"]].concat());
        serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {stdout}"))
    }
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code().expect("an exit code, not a signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Asserts that it ended with exactly one error line, with this exit code and all of `parts`.
    #[track_caller]
    pub(crate) fn assert_error(&self, code: i32, parts: &[&str]) {
        let errors: Vec<_> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!((self.code, errors.len()), (code, 1), "{}{}", self.stdout, self.stderr);
        assert_eq!(self.stderr.lines().last(), errors.first().copied(), "nothing after it: {}", self.stderr);
        for part in parts {
            assert!(errors[0].contains(part), "{:?} does not say {part:?}", errors[0]);
        }
    }
}
