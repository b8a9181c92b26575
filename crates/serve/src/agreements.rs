//! Policies of early exits, by the agreement that a client asks for. Each is calibrated once, one at a time,
//! whether or not the client who asked stays.

use crate::error::{ApiError, Result};
use offramp_engine::ConfidenceExit;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Finds the policy for an agreement; it may take a while. The error is one line.
pub type Calibrate = Arc<dyn Fn(f64) -> Found + Send + Sync>;

/// A policy, or why there is none.
type Found = std::result::Result<ConfidenceExit, String>;

/// Agreements are rounded up to hundredths, so that there are few.
const STEPS: f64 = 100.0;

/// The policies that were asked for so far.
pub(crate) struct Agreements {
    calibrate: Option<Calibrate>,
    known: Mutex<BTreeMap<u32, watch::Receiver<Option<Found>>>>,
    /// Held while one is calibrated.
    one_at_a_time: Arc<Mutex<()>>,
}

impl Agreements {
    pub(crate) fn new(calibrate: Option<Calibrate>) -> Self {
        Self { calibrate, known: Mutex::default(), one_at_a_time: Arc::default() }
    }

    pub(crate) fn are_offered(&self) -> bool {
        self.calibrate.is_some()
    }

    /// The policy; who asks for one that is not known yet waits until it is found.
    pub(crate) async fn policy(&self, agreement: f64) -> Result<ConfidenceExit> {
        let Some(calibrate) = &self.calibrate else {
            let message = "this server has no text to calibrate an agreement on: give an exit_layer instead";
            return Err(ApiError::invalid("agreement", message));
        };
        if !(0.5..=1.0).contains(&agreement) {
            let message = format!("agreement is {agreement}: give a share between 0.5 and 1, such as 0.98");
            return Err(ApiError::invalid("agreement", message));
        }
        let mut found = self.begin((agreement * STEPS).ceil() as u32, calibrate);
        let found = match found.wait_for(Option::is_some).await {
            Ok(found) => found.clone().unwrap_or_else(|| Err("the calibration failed".to_owned())),
            Err(_) => Err("the calibration failed".to_owned()),
        };
        found.map_err(|error| ApiError::invalid("agreement", format!("agreement {agreement}: {error}")))
    }

    /// What is or will be found for so many hundredths.
    fn begin(&self, step: u32, calibrate: &Calibrate) -> watch::Receiver<Option<Found>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || {
            let (sender, receiver) = watch::channel(None);
            let (calibrate, turn) = (Arc::clone(calibrate), Arc::clone(&self.one_at_a_time));
            tokio::task::spawn_blocking(move || {
                let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                let _ = sender.send(Some(calibrate(f64::from(step) / STEPS)));
            });
            receiver
        };
        known.entry(step).or_insert_with(begin).clone()
    }
}
