//! What a training run shows of itself on stderr: a dashboard that is redrawn in a terminal, lines now and then
//! elsewhere, and a line that stays for each validation.

use crate::dashboard::{self, Latest, State};
use crate::number::grouped;
use crate::progress::{QUIET, remaining};
use crate::screen::Screen;
use offramp_eval::Stability;
use offramp_model::journal::{self, Record, StepRecord, ValidationRecord};
use offramp_model::run_folder::JOURNAL;
use offramp_train::Event;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Between two drawings of the dashboard.
const BETWEEN_DRAWINGS: Duration = Duration::from_millis(200);
/// Between two lines where stderr is no terminal: a twentieth of the time so far, within these.
const BETWEEN_LINES: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(60)];

/// The display of one run.
#[derive(Debug)]
pub(crate) struct Live {
    screen: Screen,
    journal: PathBuf,
    stability: Stability,
    latest: Latest,
    state: Option<State>,
    steps: u64,
    first: u64,
    began: Instant,
    shown: Option<Instant>,
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
            began: Instant::now(),
            shown: None,
        }
    }

    /// Where it shows itself.
    pub(crate) fn screen(&self) -> Screen {
        self.screen.clone()
    }

    /// Shows what happened.
    pub(crate) fn show(&mut self, event: Event<'_>) {
        match event {
            Event::Started { step, steps, parameters, tokens_per_step, train_tokens, valid_tokens } => {
                (self.steps, self.first, self.began) = (steps, step, Instant::now());
                self.catch_up();
                let [parameters, train, valid] = [parameters, train_tokens, valid_tokens].map(grouped);
                self.screen.say(&format!(
                    "{parameters} parameters; {train} training tokens, {valid} validation tokens"
                ));
                let from = if step > 0 { format!(", from step {}", grouped(step)) } else { String::new() };
                let [steps, tokens] = [steps, tokens_per_step].map(grouped);
                self.screen.say(&format!("{steps} steps of {tokens} tokens{from}"));
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

    /// A run that goes on shows what it was before. A new one has no step in its journal.
    fn catch_up(&mut self) {
        // The run has read it already, and would have said what is wrong.
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
        self.state = Some(State {
            step: record.step,
            steps: self.steps,
            remaining: remaining(self.began.elapsed(), record.step - self.first, self.steps - self.first),
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
        self.shown = Some(Instant::now());
        match (self.screen.is_terminal(), &self.state) {
            (false, Some(state)) => self.screen.say(&dashboard::plain(state)),
            _ => self.draw(),
        }
    }

    /// In a terminal, what is done in a second shows no dashboard; a file always gets the last step.
    fn is_due(&self, last: bool) -> bool {
        let (terminal, elapsed) = (self.screen.is_terminal(), self.began.elapsed());
        let [least, most] = BETWEEN_LINES;
        match self.shown.map(|shown| shown.elapsed()) {
            _ if last && !terminal => true,
            None => elapsed > if terminal { QUIET } else { least },
            Some(_) if last => true,
            Some(since) => {
                since > if terminal { BETWEEN_DRAWINGS } else { (elapsed / 20).clamp(least, most) }
            }
        }
    }

    /// The dashboard holds the latest validation; the ones before stay above it.
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
