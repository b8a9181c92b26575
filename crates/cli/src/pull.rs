//! `offramp pull`: downloads a model from the hub, or what is new in it.

use crate::download;
use crate::output;
use anyhow::{Result, bail};
use offramp_hub::Id;
use offramp_model::hub;
use serde::Serialize;
use std::path::PathBuf;

/// Download a model from Hugging Face's hub, or what is new in it
///
/// The files go into the cache of Hugging Face's own tools, which find them there (HF_HOME, HF_HUB_CACHE).
/// Where a command expects a model it takes the same name, and downloads what is missing; what is there it
/// uses without asking the hub. `pull` asks. HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE, HTTPS_PROXY and NO_PROXY
/// mean what they mean to Hugging Face's tools.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  offramp pull HuggingFaceTB/SmolLM2-135M-Instruct\n  offramp pull org/name@v1.0\n  offramp pull org/name-GGUF:Q4_K_M"
)]
pub(crate) struct Arguments {
    /// The model: ORG/NAME, ORG/NAME@REVISION, and for a GGUF file ORG/NAME:FILE or ORG/NAME:QUANTIZATION
    name: String,
}

#[derive(Serialize)]
struct Answer {
    name: String,
    #[serde(serialize_with = "output::path")]
    path: PathBuf,
    commit: String,
    /// The commit that the revision meant before.
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let id = parse(&arguments.name)?;
    let name = id.to_string();
    let pulled = download::shown(&name, |observer| hub::pull(&id, observer))?;
    if let Some(before) = &pulled.before {
        let short = |commit: &str| commit.chars().take(12).collect::<String>();
        let (from, to) = (short(before), short(&pulled.commit));
        output::note(&format!("{name}: {} moved from {from} to {to}", id.revision()));
    }
    let answer = Answer { name, path: pulled.path, commit: pulled.commit, before: pulled.before };
    match json {
        true => output::json(&answer)?,
        false => output::text(&format!("{}\n", answer.path.display()))?,
    }
    Ok(())
}

/// A name on the hub.
pub(crate) fn parse(name: &str) -> Result<Id> {
    match Id::parse(name) {
        Some(id) => Ok(id),
        None => bail!(
            "{:?} is no name on the hub: it is ORG/NAME, and may be followed by @REVISION and by :FILE",
            offramp_files::legible(name)
        ),
    }
}
