//! `offramp list`: the models in the hub's cache.

use crate::number::bytes;
use crate::output::{self, TextTable};
use anyhow::Result;
use offramp_hub::{Repository, Revision, Settings};
use offramp_model::hub::{self, Held};
use offramp_pipeline::ModelSource;
use serde::Serialize;
use std::path::PathBuf;

/// List the models in the hub's cache: their size, their formats, and whether they were trained for exits
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  offramp list")]
pub(crate) struct Arguments {}

#[derive(Serialize)]
struct Answer {
    #[serde(serialize_with = "output::path")]
    cache: PathBuf,
    /// Bytes that the cache's models take; what revisions share counts once.
    bytes: u64,
    models: Vec<Model>,
}

#[derive(Serialize)]
struct Model {
    /// As every command takes it.
    name: String,
    commit: String,
    #[serde(serialize_with = "output::path")]
    path: PathBuf,
    bytes: u64,
    #[serde(flatten)]
    kind: Kind,
}

/// What its files say.
#[derive(Serialize)]
#[serde(untagged)]
enum Kind {
    Runs { model_type: String, layers: usize, formats: Vec<String>, trained_for_exits: bool },
    DoesNotRun { fault: String },
}

pub(crate) fn run(_: &Arguments, json: bool) -> Result<()> {
    let cache = Settings::from_environment()?.cache;
    let repositories = cache.repositories()?;
    let models = repositories.iter().flat_map(|repository| {
        repository.revisions.iter().flat_map(|revision| {
            hub::held(revision).into_iter().map(|held| model(repository, revision, held))
        })
    });
    let answer = Answer {
        cache: cache.root().to_owned(),
        bytes: repositories.iter().map(|repository| repository.bytes).sum(),
        models: models.collect(),
    };
    match json {
        true => output::json(&answer)?,
        false => output::text(&describe(&answer))?,
    }
    Ok(())
}

fn model(repository: &Repository, revision: &Revision, held: Held) -> Model {
    let main = revision.names.iter().any(|name| name == "main");
    let named = revision.names.first().unwrap_or(&revision.commit);
    let mut id = repository.id.clone();
    id.revision = (!main).then(|| named.clone());
    id.file = held.file;
    let kind = kind(&held.path).unwrap_or_else(|error| Kind::DoesNotRun { fault: error.to_string() });
    Model { name: id.to_string(), commit: revision.commit.clone(), path: held.path, bytes: held.bytes, kind }
}

fn kind(path: &std::path::Path) -> Result<Kind> {
    let source = ModelSource::resolve(path)?;
    let config = source.config()?;
    let weights = source.weights(&config)?;
    Ok(Kind::Runs {
        model_type: config.family.model_type.name().to_owned(),
        layers: config.num_hidden_layers,
        formats: weights.formats().into_keys().collect(),
        trained_for_exits: config.trained_for_exits(),
    })
}

fn describe(answer: &Answer) -> String {
    let place = answer.cache.display();
    if answer.models.is_empty() {
        return format!("no model is in {place}: `offramp pull ORG/NAME` downloads one\n");
    }
    let mut table = TextTable::new(["model", "size", "kind", "layers", "formats", "trained for exits"]);
    for model in &answer.models {
        let (name, size) = (model.name.clone(), bytes(model.bytes));
        match &model.kind {
            Kind::Runs { model_type, layers, formats, trained_for_exits } => {
                let trained = if *trained_for_exits { "yes" } else { "not said" };
                let cells = [model_type.clone(), layers.to_string(), formats.join(", "), trained.to_owned()];
                let [kind, layers, formats, trained] = cells;
                table.row([name, size, kind, layers, formats, trained]);
            }
            Kind::DoesNotRun { .. } => {
                let none = || "-".to_owned();
                table.row([name, size, "does not run here".to_owned(), none(), none(), none()]);
            }
        }
    }
    format!("{}\n{} in {place}\n", table.render(), bytes(answer.bytes))
}
