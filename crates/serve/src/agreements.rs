//! Policies of early exits, by the agreement that a client asks for. Each is calibrated once.

use crate::error::{ApiError, Result};
use offramp_engine::ConfidenceExit;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::Mutex;

/// Finds the policy for an agreement; it may take a while. The error is one line.
pub type Calibrate = Arc<dyn Fn(f64) -> std::result::Result<ConfidenceExit, String> + Send + Sync>;

/// Agreements are rounded up to hundredths, so that there are few.
const STEPS: f64 = 100.0;

/// The policies that were calibrated so far.
pub(crate) struct Agreements {
    calibrate: Option<Calibrate>,
    known: Mutex<BTreeMap<u32, std::result::Result<ConfidenceExit, String>>>,
}

impl Agreements {
    pub(crate) fn new(calibrate: Option<Calibrate>) -> Self {
        Self { calibrate, known: Mutex::new(BTreeMap::new()) }
    }

    pub(crate) fn are_offered(&self) -> bool {
        self.calibrate.is_some()
    }

    /// The policy; the first who asks for it waits until it is found, and so do all who ask meanwhile.
    pub(crate) async fn policy(&self, agreement: f64) -> Result<ConfidenceExit> {
        let Some(calibrate) = &self.calibrate else {
            let message = "this server has no text to calibrate an agreement on: give an exit_layer instead";
            return Err(ApiError::invalid("agreement", message));
        };
        if !(0.5..=1.0).contains(&agreement) {
            let message = format!("agreement is {agreement}: give a share between 0.5 and 1, such as 0.98");
            return Err(ApiError::invalid("agreement", message));
        }
        let step = (agreement * STEPS).ceil() as u32;
        let mut known = self.known.lock().await;
        if !known.contains_key(&step) {
            let calibrate = Arc::clone(calibrate);
            let found = tokio::task::spawn_blocking(move || calibrate(f64::from(step) / STEPS)).await;
            known.insert(step, found.unwrap_or_else(|_| Err("the calibration failed".to_owned())));
        }
        let found = known.get(&step).cloned().unwrap_or_else(|| Err("the calibration failed".to_owned()));
        found.map_err(|error| ApiError::invalid("agreement", format!("agreement {agreement}: {error}")))
    }
}
