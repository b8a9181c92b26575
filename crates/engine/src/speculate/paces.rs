//! What steps of one text or several took, with drafts and without. Estimates of costs may be wrong where
//! rows are dear; what a step took is not. Where drafts turn out to be slower, they rest, and each time for
//! longer.

/// What a new step counts beside those before it.
const NEW: f64 = 1.0 / 16.0;
/// Steps without drafts before the first with them.
const FIRST: u32 = 4;
/// A step that took more than so many times the mean (the machine was elsewhere) counts as that.
const FARTHEST: f64 = 2.0;
/// After so many steps with drafts, these must have taken less than this share of the time without them: few
/// steps say something only where the loss is large.
const JUDGED: [(u32, f64); 3] = [(3, 1.25), (6, 1.1), (12, 0.98)];
/// Steps for which they rest at first, by which factor longer each time, and at most.
const REST: u32 = 64;
const LONGER: u32 = 4;
const LONGEST_REST: u32 = 1 << 14;
/// Steps with drafts after which so many without show again what these take.
const REMINDER: u32 = 128;
const PLAIN_RUN: u32 = 3;

/// What was seen of steps that so many texts shared, by powers of two.
#[derive(Clone, Debug, Default)]
pub(super) struct Paces([Pace; 8]);

/// One size of company.
#[derive(Clone, Copy, Debug)]
struct Pace {
    plain: Mean,
    drafted: Mean,
    since_plain: u32, // steps with drafts since
    plain_left: u32,  // steps without drafts to come
    rest: u32,        // steps that drafts rest yet
    next_rest: u32,
}

/// Seconds and tokens of some steps, those of long ago counting less.
#[derive(Clone, Copy, Debug, Default)]
struct Mean {
    steps: u32,
    seconds: f64,
    tokens: f64,
}

impl Default for Pace {
    fn default() -> Self {
        let none = Mean::default();
        Self { plain: none, drafted: none, since_plain: 0, plain_left: 0, rest: 0, next_rest: REST }
    }
}

impl Pace {
    /// Whether steps without drafts are due: some, after so many with.
    fn wants_plain(&mut self) -> bool {
        if self.since_plain >= REMINDER {
            self.plain_left = PLAIN_RUN;
        }
        self.plain_left > 0
    }
}

impl Paces {
    fn of(&mut self, texts: usize) -> &mut Pace {
        let size = texts.max(1).ilog2() as usize;
        &mut self.0[size.min(7)]
    }

    /// Whether so many texts may draft in the next step; a text alone need not know before what it takes
    /// without drafts.
    pub(super) fn allow(&mut self, texts: usize) -> bool {
        let pace = self.of(texts);
        if pace.rest > 0 {
            pace.rest -= 1;
            return false;
        }
        texts == 1 || pace.plain.steps >= FIRST && !pace.wants_plain()
    }

    /// A step of so many texts is over.
    pub(super) fn saw(&mut self, texts: usize, step: Step) {
        let pace = self.of(texts);
        if !step.drafted {
            // The first after drafts finds less of the weights in the cache than those that follow.
            if pace.since_plain == 0 {
                pace.plain.add(step);
            }
            pace.since_plain = 0;
            pace.plain_left = pace.plain_left.saturating_sub(1);
            return;
        }
        pace.drafted.add(step);
        pace.since_plain += 1;
        let Some((steps, most)) = JUDGED.into_iter().rfind(|(steps, _)| pace.drafted.steps >= *steps) else {
            return;
        };
        if pace.plain.steps == 0 {
            return;
        }
        if pace.drafted.seconds_each() > most * pace.plain.seconds_each() {
            (pace.rest, pace.drafted) = (pace.next_rest, Mean::default());
            pace.next_rest = (LONGER * pace.next_rest).min(LONGEST_REST);
        } else if steps == JUDGED[2].0 {
            pace.next_rest = REST;
        }
    }
}

/// A step that is over.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) drafted: bool,
    pub(crate) seconds: f64,
    /// Tokens of all texts that were planned together.
    pub(crate) tokens: usize,
}

impl Mean {
    fn add(&mut self, Step { seconds, tokens, .. }: Step) {
        self.steps = self.steps.saturating_add(1);
        let new = (1.0 / f64::from(self.steps)).max(NEW);
        let most = if self.steps > 2 { FARTHEST * self.seconds } else { f64::INFINITY };
        self.seconds += new * (seconds.min(most) - self.seconds);
        self.tokens += new * (tokens as f64 - self.tokens);
    }

    fn seconds_each(&self) -> f64 {
        self.seconds / self.tokens.max(1e-9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps with drafts among so many, where a draft of a text takes and gives so much.
    fn drafted(steps: usize, seconds: f64, tokens: usize) -> usize {
        let mut paces = Paces::default();
        let one = |_| {
            let drafted = paces.allow(4);
            let (seconds, tokens) = if drafted { (seconds, tokens) } else { (1.0, 4) };
            paces.saw(4, Step { drafted, seconds, tokens });
            usize::from(drafted)
        };
        (0..steps).map(one).sum()
    }

    #[test]
    fn drafts_that_pay_go_on() {
        let drafted = drafted(1000, 1.5, 8);
        assert!((970..1000).contains(&drafted), "{drafted}");
    }

    #[test]
    fn a_large_loss_is_seen_at_once() {
        let drafted = drafted(300, 4.0, 5);
        assert!((3..=9).contains(&drafted), "{drafted}");
    }

    #[test]
    fn drafts_that_do_not_rest_for_longer_and_longer() {
        let drafted = drafted(4000, 1.5, 5);
        assert!((9..=60).contains(&drafted), "{drafted}");
    }

    #[test]
    fn a_text_alone_drafts_at_once_and_rests_where_it_loses() {
        let mut paces = Paces::default();
        let slow = Step { drafted: true, seconds: 2.0, tokens: 1 };
        for _ in 0..30 {
            assert!(paces.allow(1), "nobody knows what a plain step takes");
            paces.saw(1, slow);
        }
        (0..2).for_each(|_| paces.saw(1, Step { drafted: false, seconds: 1.0, tokens: 1 }));
        paces.saw(1, slow);
        let rests = (0..100).take_while(|_| !paces.allow(1)).count();
        assert_eq!(rests, REST as usize);
    }

    #[test]
    fn what_is_true_of_four_texts_is_not_said_of_sixteen() {
        let mut paces = Paces::default();
        (0..8).for_each(|_| paces.saw(4, Step { drafted: false, seconds: 1.0, tokens: 4 }));
        assert!(paces.allow(5) && !paces.allow(16) && !paces.allow(1000));
    }
}
