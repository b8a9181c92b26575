//! Several processes of one command, started by `mpirun` or `srun`: an error of one ends all.

use crate::failure;
use crate::output::note;
use anyhow::Result;
use offramp_ranks::Ranks;
use std::fs;
use std::panic::{self, AssertUnwindSafe};
use std::process;
use std::thread;
use std::time::Duration;

/// Runs `work` on this rank. Where there are others, its error or panic is told with the rank and the host,
/// and ends them too: they would wait for it. So is waiting for the others for longer than `limit`: a network
/// may fall silent without an error.
pub(crate) fn together<T>(
    ranks: &mut Ranks,
    limit: Option<Duration>,
    work: impl FnOnce(&mut Ranks) -> Result<T>,
) -> Result<T> {
    if ranks.size() == 1 {
        return work(ranks);
    }
    if let Some(limit) = limit {
        watch(ranks, limit);
    }
    let done = panic::catch_unwind(AssertUnwindSafe(|| work(ranks)));
    let error = match done {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => error,
        Err(_) => anyhow::anyhow!("a fault in offramp itself, please report it: {}", failure::last_panic()),
    };
    // All ranks see that they differ; the first says it, and ends the others.
    if !ranks.is_first() && is_everybodys(&error) || is_after_another(&error) {
        thread::sleep(Duration::from_secs(5));
    } else {
        let (rank, size) = (ranks.rank(), ranks.size());
        note(&format!("error: rank {rank} of {size}{}: {}", host(), failure::one_line(&error)));
        // The launcher carries the line, and drops what it has not yet read when it hears of the end.
        thread::sleep(Duration::from_millis(500));
    }
    ranks.abort(failure::exit_code(&error).into())
}

/// Ends this process, and by that all others, when an exchange lasts too long.
fn watch(ranks: &Ranks, limit: Duration) {
    let (watch, who) = (ranks.watch(), format!("rank {} of {}{}", ranks.rank(), ranks.size(), host()));
    let look = move || loop {
        thread::sleep(limit.min(Duration::from_secs(1)));
        if watch.waiting().is_some_and(|waiting| waiting > limit) {
            let limit = limit.as_secs();
            note(&format!(
                "error: {who}: nothing came from the other processes for {limit} s: look at their machines and the \
                 network; --rank-timeout sets the limit, and --resume goes on from the last checkpoint"
            ));
            offramp_files::abandon();
            process::exit(1);
        }
    };
    let _ = thread::Builder::new().name("watch".to_owned()).spawn(look);
}

/// Whether all ranks find this error together.
fn is_everybodys(error: &anyhow::Error) -> bool {
    use offramp_train::Error::{Diverged, RanksDiffer, RanksDoNotDivide};
    matches!(error.downcast_ref(), Some(RanksDiffer { .. } | RanksDoNotDivide { .. } | Diverged { .. }))
}

/// Whether another rank has failed before, and says why.
fn is_after_another(error: &anyhow::Error) -> bool {
    use offramp_text::{CrewError::NotFirst, Error::Crew};
    let text = match error.downcast_ref() {
        Some(offramp_train::Error::Text(error)) => Some(error), // a transparent error does not stand in the chain
        _ => error.downcast_ref(),
    };
    matches!(text, Some(Crew(NotFirst)))
}

/// ` on HOST`, where the system says it.
fn host() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { String::new() } else { format!(" on {}", name.trim()) }
}
