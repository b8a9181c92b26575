//! A training run, whose journal Python hears record by record.

use crate::errors::OrRaise;
use crate::fork;
use crate::interruptible::{self, Stop};
use crate::measures::json;
use offramp_model::journal::{CheckpointRecord, Record};
use offramp_train::{Event, Job, Recipe, RunCorpus, Summary};
use pyo3::types::PyAnyMethods;
use pyo3::{Py, PyAny, PyErr, PyResult, Python, pyfunction};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// What a run is told, beside its recipe.
#[derive(Clone, Copy)]
struct How {
    resume: bool,
    best: bool,
}

/// Trains what a recipe describes, and returns how it ended as JSON. `heard` is called with each record of
/// the journal as JSON; once it returns `False`, the run saves its last step and stops.
#[pyfunction]
pub(crate) fn train(
    py: Python<'_>,
    recipe: PathBuf,
    out: PathBuf,
    resume: bool,
    best: bool,
    heard: Py<PyAny>,
) -> PyResult<String> {
    fork::check()?;
    // An exception that the callback raised ends the run, too.
    let raised: Mutex<Option<PyErr>> = Mutex::new(None);
    let how = How { resume, best };
    let found = interruptible::run(py, |stop| {
        let mut hear = |record: Record| {
            let goes_on = Python::attach(|py| {
                let answer = heard.bind(py).call1((json(&record)?,))?;
                Ok::<bool, PyErr>(answer.is_none() || answer.is_truthy()?)
            });
            match goes_on {
                Ok(true) => (),
                Ok(false) => stop.flag().store(true, Ordering::Relaxed),
                Err(error) => {
                    stop.flag().store(true, Ordering::Relaxed);
                    raised.lock().unwrap_or_else(|error| error.into_inner()).get_or_insert(error);
                }
            }
        };
        run(&recipe, out, how, stop, &mut hear)
    })?;
    if let Some(error) = raised.into_inner().unwrap_or_else(|error| error.into_inner()) {
        return Err(error);
    }
    let Summary { step, stopped, skipped, model, seconds, best, .. } = found.or_raise()?;
    let best = best.map(|best| serde_json::json!({ "step": best.step, "loss": best.loss }));
    json(&serde_json::json!({
        "step": step, "stopped": stopped, "skipped": skipped, "model": model, "seconds": seconds, "best": best,
    }))
}

fn run(
    recipe: &Path,
    folder: PathBuf,
    how: How,
    stop: &Stop,
    hear: &mut dyn FnMut(Record),
) -> offramp_train::Result<Summary> {
    let How { resume, best } = how;
    let recipe = match resume {
        true => Recipe::read_for_run(recipe, &folder)?,
        false => Recipe::read_observed(recipe, &|_| stop.leave_if_stopped())?,
    };
    if !resume {
        // Checked now: preparing a corpus would write into the folder of another run.
        offramp_train::check_new(&folder)?;
    }
    let prepared = offramp_train::corpus(&recipe, &folder, resume, &mut |_| stop.leave_if_stopped())?;
    let RunCorpus { folder: corpus, .. } = prepared;
    let job = Job { recipe: &recipe, corpus, folder, resume, best, stop: stop.flag() };
    offramp_train::run(&job, &mut |event| match event {
        Event::Step { record, .. } => hear(Record::Step(record.clone())),
        Event::Validation { record } => hear(Record::Validation(record.clone())),
        Event::Checkpoint { step, path } => {
            let folder = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            hear(Record::Checkpoint(CheckpointRecord { step, folder, best: None }));
        }
        Event::Started { .. } | Event::Longer { .. } | Event::Rounded { .. } => (),
    })
}
