//! `offramp remove`: removes a model from the hub's cache.

use crate::number::bytes;
use crate::{output, pull};
use anyhow::{Result, bail};
use offramp_hub::Settings;
use offramp_model::hub;
use serde::Serialize;

/// Remove a downloaded model from the hub's cache
///
/// With a revision only its files go, and with a file only this file; what another revision needs stays.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  offramp remove org/name\n  offramp remove org/name-GGUF:Q4_K_M")]
pub(crate) struct Arguments {
    /// The model, as `offramp list` names it
    name: String,
}

#[derive(Serialize)]
struct Answer {
    name: String,
    freed_bytes: u64,
}

pub(crate) fn run(arguments: &Arguments, json: bool) -> Result<()> {
    let id = pull::parse(&arguments.name)?;
    let Some(freed_bytes) = hub::remove(&id)? else {
        let cache = Settings::from_environment()?.cache;
        let cache = cache.root().display();
        bail!("{id} is not in the hub's cache ({cache}): `offramp list` names what is there");
    };
    let answer = Answer { name: id.to_string(), freed_bytes };
    match json {
        true => output::json(&answer)?,
        false => output::text(&format!("removed {}, {} are free\n", answer.name, bytes(freed_bytes)))?,
    }
    Ok(())
}
