//! What a training run shows on stderr. In a terminal it is a dashboard that is redrawn; elsewhere it is a
//! line every few seconds. Each validation is a line that stays.

use crate::dashboard::{self, Latest, RunState};
use crate::number::grouped;
use crate::pace::Pace;
use crate::screen::Screen;
use offramp_eval::Stability;
use offramp_model::journal::{self, Record, StepRecord, ValidationRecord};
use offramp_model::run_folder::JOURNAL;
use offramp_train::Event;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The least and the most time between two lines where stderr is no terminal. In between, it is a twentieth
/// of the time so far.
const BETWEEN_LINES: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

/// The display of one run.
#[derive(Debug)]
pub(crate) struct Live {
    screen: Screen,
    journal: PathBuf,
    stability: Stability,
    latest: Latest,
    state: Option<RunState>,
    steps: u64,
    first: u64,
    pace: Pace,
}

impl Live {
    /// The display of the run in this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            screen: Screen::stderr(),
            journal: folder.join(JOURNAL),
            stability: Stability::default(),
            latest: Latest::default(),
            state: None,
            steps: 0,
            first: 0,
            pace: Pace::begin(),
        }
    }

    /// The screen that it draws on.
    pub(crate) fn screen(&self) -> Screen {
        self.screen.clone()
    }

    /// Shows an event of the run.
    pub(crate) fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Started { step, steps, parameters, tokens_per_step, train_tokens, valid_tokens } => {
                (self.steps, self.first, self.pace) = (steps, step, Pace::begin());
                self.catch_up();
                let [parameters, train, valid] = [parameters, train_tokens, valid_tokens].map(grouped);
                self.screen.say(&format!(
                    "{parameters} parameters; {train} training tokens, {valid} validation tokens"
                ));
                let from = if step > 0 { format!(", from step {}", grouped(step)) } else { String::new() };
                let [steps, tokens] = [steps, tokens_per_step].map(grouped);
                self.screen.say(&format!("{steps} steps of {tokens} tokens{from}"));
            }
            Event::Rounded { path, formats } => {
                let (path, formats) = (path.display(), formats.join(", "));
                self.screen.say(&format!(
                    "note: {path} holds {formats}: the run begins from values that were rounded to these codes"
                ));
            }
            Event::Longer { before, steps, learning_rates: [was, is] } => {
                let [before, steps] = [before, steps].map(grouped);
                self.screen.say(&format!(
                    "{before} steps have become {steps}: the schedule ends later, and the next step's learning rate is \
                     {is:.1e} where it was {was:.1e} (a run from this one's model, [start] checkpoint, has a schedule of \
                     its own)"
                ));
            }
            Event::Step { record, skipped } => self.step(record, skipped),
            Event::Validation { record } => self.validation(record),
            Event::Checkpoint { step, path } => {
                self.latest.saved = Some(step);
                match self.screen.is_terminal() {
                    true => self.draw(),
                    false => self.screen.say(&format!("step {}: saved {}", grouped(step), path.display())),
                }
            }
        }
    }

    /// Reads what a resumed run did before. The journal of a new run has no step.
    fn catch_up(&mut self) {
        // The run has read the journal already and reports its faults.
        for record in journal::read(&self.journal).unwrap_or_default() {
            match record {
                Record::Step(step) => self.stability.add(&step),
                Record::Validation(record) => self.latest.validation = Some(record),
                _ => (),
            }
        }
    }

    fn step(&mut self, record: &StepRecord, skipped: u64) {
        self.stability.add(record);
        if !self.is_due(record.step == self.steps) {
            return;
        }
        self.state = Some(RunState {
            step: record.step,
            steps: self.steps,
            remaining: self.pace.remaining(record.step - self.first, self.steps - self.first),
            tokens_per_second: self.stability.tokens_per_second(),
            loss: record.final_loss,
            smoothed_loss: self.stability.smoothed_loss(),
            grad_norm: record.grad_norm,
            usual_norm: self.stability.grad_norm().median,
            learning_rate: record.learning_rate,
            skipped,
            loss_spikes: self.stability.loss_spikes(),
            memory: offramp_eval::memory(),
        });
        self.pace.show();
        match (self.screen.is_terminal(), &self.state) {
            (false, Some(state)) => self.screen.say(&dashboard::plain(state)),
            _ => self.draw(),
        }
    }

    /// A terminal shows no dashboard in the first second. A file always gets the last step.
    fn is_due(&self, last: bool) -> bool {
        let [least, most] = BETWEEN_LINES;
        let terminal = self.screen.is_terminal();
        let must = last && (!terminal || self.pace.has_shown());
        must || self.pace.is_due(terminal, (self.pace.elapsed() / 20).clamp(least, most))
    }

    /// The dashboard holds the latest validation. Earlier ones stay above it.
    fn validation(&mut self, record: &ValidationRecord) {
        if !self.screen.is_terminal() {
            self.screen.say(&dashboard::validation(record));
        } else if let Some(before) = self.latest.validation.replace(record.clone()) {
            self.screen.say(&dashboard::validation(&before));
        }
        self.draw();
    }

    fn draw(&self) {
        if let (true, Some(state)) = (self.screen.is_terminal(), &self.state) {
            self.screen.draw(dashboard::lines(state, &self.latest, self.screen.width()));
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        if self.screen.is_terminal() {
            self.screen.draw(Vec::new());
            if let Some(record) = &self.latest.validation {
                self.screen.say(&dashboard::validation(record));
            }
        }
    }
}
