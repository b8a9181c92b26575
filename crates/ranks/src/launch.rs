//! Whether a launcher started this process as one of several.

#[cfg(not(feature = "mpi"))]
use crate::abi::Abi;
use crate::alone::Alone;
use crate::engine::Engine;
use crate::error::{Error, Result};
#[cfg(feature = "mpi")]
use crate::linked::Linked;
use std::env;

/// The variables by which launchers tell a process its rank: MPICH's and Slurm's (PMI), Open MPI's (PMIx).
const RANKS: [&str; 3] = ["PMI_RANK", "PMIX_RANK", "OMPI_COMM_WORLD_RANK"];
/// The variables by which they tell how many there are.
const SIZES: [&str; 3] = ["PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS"];

/// The variables by which they tell how many are on this machine.
const LOCAL: [&str; 3] = ["MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE"];

/// Processes of this run on this machine, as far as the launcher says; 1 for a process alone.
pub fn on_this_machine() -> usize {
    let is_one_of_several = RANKS.iter().any(|name| env::var_os(name).is_some());
    let said = LOCAL.iter().filter(|_| is_one_of_several).find_map(|name| env::var(name).ok()?.parse().ok());
    said.unwrap_or(1).max(1)
}

/// The engine of this process.
pub(crate) fn engine() -> Result<Box<dyn Engine>> {
    let told = |name: &&&str| env::var_os(name).is_some();
    let Some(launcher) = RANKS.iter().find(told) else { return Ok(Box::new(Alone)) };
    let engine = start(launcher)?;
    let started = SIZES.iter().find_map(|name| env::var(name).ok()?.parse::<usize>().ok());
    match started {
        Some(started) if started != engine.size() => Err(Error::AnotherLauncher {
            launcher: (*launcher).to_owned(),
            started,
            seen: engine.size(),
            library: engine.name(),
        }),
        _ => Ok(engine),
    }
}

/// The library that the build was linked with.
#[cfg(feature = "mpi")]
fn start(_launcher: &str) -> Result<Box<dyn Engine>> {
    Ok(Box::new(Linked::start()?))
}

/// The library with the standard ABI that is found.
#[cfg(not(feature = "mpi"))]
fn start(launcher: &str) -> Result<Box<dyn Engine>> {
    Ok(Box::new(Abi::start(launcher)?))
}
