//! Exit layer × draft length: acceptance, tokens per second, speed-up.
//!
//! Machines are shared and drift. So in every round all points decode the same prompt in turn, with plain
//! decoding before and after each exit's lengths. A point's speed-up is over the mean of these two.
//!
//! Among many points, luck makes the best look better than it is. So the best point and the adaptive policy
//! are measured once more, in turn over the same prompts. The share that `auto` reaches is the median of
//! these pairs.

mod exits;
mod report;

pub use exits::swept_exits;
pub use report::{AutoPoint, ChosenExit, SweepPoint, SweepReport, Verdict};

use super::verify::decode;
use crate::{Error, Result, Spread};
use offramp_engine::{
    Adaptive, Chosen, DRAFT_POSITIONS, Draft, GenerateOptions, SamplingOptions, Speculation, Statistics,
};
use offramp_model::{DraftHead, DraftLayers, Format, Llama};
use std::sync::Arc;

/// The options of a sweep.
#[derive(Clone, Debug)]
pub struct SweepOptions {
    /// Exits of the model's own that draft.
    pub exits: Vec<usize>,
    /// Exits at which copies draft.
    pub copied_exits: Vec<usize>,
    /// The most tokens drafted in a round.
    pub lengths: Vec<usize>,
    /// New tokens of each text.
    pub new_tokens: usize,
    /// Rounds, each over the next prompt.
    pub runs: usize,
    /// The sampling options.
    pub sampling: SamplingOptions,
    /// Ids from here on are never chosen.
    pub token_limit: Option<usize>,
    /// The draft head; `None` for the model's own.
    pub head: Option<DraftHead>,
    /// The copies. Where there are some, the adaptive policy chooses between them and the model's own layers.
    pub layers: Option<DraftLayers>,
}

/// Measures every point, plain decoding and the adaptive policy over `prompts`. `progress` gets the texts
/// done and the total.
///
/// # Errors
/// If an exit does not exist, there is nothing to measure, or the new tokens do not fit after a prompt.
pub fn sweep(
    model: &Arc<Llama>,
    prompts: &[Vec<u32>],
    options: &SweepOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<SweepReport> {
    check(model, prompts, options)?;
    let mut points: Vec<PointSamples> = Vec::new();
    for (exit_layer, copies) in options.drafters() {
        let drafts = options.lengths.iter().map(|&num_speculations| Draft { exit_layer, num_speculations });
        points.extend(drafts.map(|draft| PointSamples {
            draft: Some(draft),
            copies,
            ..PointSamples::default()
        }));
    }
    points.push(PointSamples::default()); // the adaptive policy
    let texts = points.len() + options.drafters().count() + 2 + REMATCH;
    let mut bench = Bench { model, options, done: 0, all: options.runs * texts };
    let mut plain = Vec::new();
    bench.text(&prompts[0], &mut Speculation::off(), &mut |_, _| ())?; // a warm-up
    bench.done = 0;
    for run in 0..options.runs {
        let prompt = &prompts[run % prompts.len()];
        let mut before = rate(&bench.text(prompt, &mut Speculation::off(), progress)?);
        plain.push(before);
        for row in points.chunk_by_mut(|a, b| a.drafter() == b.drafter()) {
            for samples in row.iter_mut() {
                samples.take(&mut bench, prompt, progress)?;
            }
            let after = rate(&bench.text(prompt, &mut Speculation::off(), progress)?);
            row.iter_mut().for_each(|samples| samples.compare((before + after) / 2.0));
            plain.push(after);
            before = after;
        }
    }
    let auto = points.pop().expect("it was put there");
    let format = options.layers.as_ref().map(DraftLayers::format);
    let points: Vec<SweepPoint> = points.into_iter().map(|samples| samples.point(format)).collect();
    let best =
        (0..points.len()).max_by(|&a, &b| points[a].speed_up.median.total_cmp(&points[b].speed_up.median));
    let best = best.expect("checked: there are points");
    let of_best = bench.rematch(prompts, &points[best], progress)?;
    let auto = auto.auto(of_best, format);
    Ok(SweepReport {
        trained_for_exits: model.config().trained_for_exits() || !model.adapter_exits().is_empty(),
        plain: Spread::of(plain),
        verdict: Verdict::of(&points[best].speed_up).max(Verdict::of(&auto.speed_up)),
        auto,
        points,
        best,
        new_tokens: options.new_tokens,
        runs: options.runs,
        kernels: offramp_engine::kernels(),
        threads: offramp_engine::threads(),
    })
}

/// The texts of a round after the sweep: one of the best point, one of the policy without knowledge, one of
/// the policy that keeps what it learnt.
const REMATCH: usize = 3;

fn check(model: &Arc<Llama>, prompts: &[Vec<u32>], options: &SweepOptions) -> Result<()> {
    let config = model.config();
    options.drafters().try_for_each(|(exit, _)| config.check_exit_layer(exit))?;
    if options.layers.is_none() && !options.copied_exits.is_empty() {
        return Err(Error::Options("copies are to draft, and there are none: give the layers".into()));
    }
    let nothing = options.drafters().next().is_none()
        || options.lengths.is_empty()
        || options.runs == 0
        || prompts.is_empty();
    if nothing || options.lengths.contains(&0) || options.new_tokens < 2 {
        let message = "a sweep needs an exit, a draft length of 1 or more, 2 new tokens and a run, at least";
        return Err(Error::Options(message.into()));
    }
    let (longest, limit) = (prompts.iter().map(Vec::len).max().unwrap_or(0), config.context());
    if longest.saturating_add(options.new_tokens) > limit {
        let message = format!(
            "{longest} prompt and {} new tokens do not fit the model's context of {limit}: ask for fewer",
            options.new_tokens
        );
        return Err(Error::Options(message));
    }
    Ok(())
}

impl SweepOptions {
    /// Exits, and whether copies draft there.
    fn drafters(&self) -> impl Iterator<Item = (usize, bool)> {
        let own = self.exits.iter().map(|&exit| (exit, false));
        own.chain(self.copied_exits.iter().map(|&exit| (exit, true)))
    }
}

fn rate(statistics: &Statistics) -> f64 {
    statistics.decode_tokens_per_second().unwrap_or(f64::NAN)
}

/// Decodes the texts of a sweep and counts them.
struct Bench<'a> {
    model: &'a Arc<Llama>,
    options: &'a SweepOptions,
    done: usize,
    all: usize,
}

impl Bench<'_> {
    fn text(
        &mut self,
        prompt: &[u32],
        speculation: &mut Speculation,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Statistics> {
        let SweepOptions { new_tokens, sampling, token_limit, .. } = *self.options;
        // No stop token: texts of the same length are comparable.
        let options = GenerateOptions {
            max_new_tokens: new_tokens,
            token_limit,
            sampling,
            ..GenerateOptions::default()
        };
        let found = decode(self.model, prompt, &options, speculation)?;
        self.done += 1;
        progress(self.done, self.all);
        Ok(found.statistics)
    }

    fn auto(&self) -> Speculation {
        let SweepOptions { head, layers, .. } = self.options;
        Speculation::auto(Adaptive::default()).with_head(head.clone()).with_layers(layers.clone())
    }

    fn fixed(&self, draft: Draft, copies: bool) -> Speculation {
        let SweepOptions { head, layers, .. } = self.options;
        let layers = layers.clone().filter(|_| copies);
        Speculation::fixed(draft).with_head(head.clone()).with_layers(layers)
    }

    /// The share of the best point's speed that the policy reaches, without knowledge and with what it
    /// learnt.
    fn rematch(
        &mut self,
        prompts: &[Vec<u32>],
        best: &SweepPoint,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<[Spread; 2]> {
        let mut kept = self.auto();
        let mut shares = [Vec::new(), Vec::new()];
        for run in 0..self.options.runs {
            let prompt = &prompts[run % prompts.len()];
            let mut fixed = self.fixed(best.draft(), best.draft_format.is_some());
            let mut anew = self.auto();
            let mut rates = [0.0; REMATCH];
            // Each is first, second and last in turn.
            for place in (0..REMATCH).map(|place| (place + run) % REMATCH) {
                let speculation = match place {
                    0 => &mut fixed,
                    1 => &mut anew,
                    _ => &mut kept,
                };
                rates[place] = rate(&self.text(prompt, speculation, progress)?);
            }
            shares[0].push(rates[1] / rates[0]);
            shares[1].push(rates[2] / rates[0]);
        }
        Ok(shares.map(Spread::of))
    }
}

impl SweepPoint {
    fn draft(&self) -> Draft {
        Draft { exit_layer: self.exit_layer, num_speculations: self.num_speculations }
    }
}

/// The texts of one point.
#[derive(Default)]
struct PointSamples {
    draft: Option<Draft>,
    copies: bool,
    statistics: Vec<Statistics>,
    speed_ups: Vec<f64>,
    chosen: Vec<Chosen>,
}

impl PointSamples {
    fn drafter(&self) -> (Option<usize>, bool) {
        (self.draft.map(|draft| draft.exit_layer), self.copies)
    }

    fn take(
        &mut self,
        bench: &mut Bench<'_>,
        prompt: &[u32],
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<()> {
        let mut speculation =
            self.draft.map_or_else(|| bench.auto(), |draft| bench.fixed(draft, self.copies));
        self.statistics.push(bench.text(prompt, &mut speculation, progress)?);
        for chosen in speculation.chosen() {
            let key = |chosen: &Chosen| (chosen.exit_layer, chosen.copies);
            let place = self.chosen.partition_point(|known| key(known) < key(chosen));
            if self.chosen.get(place).is_none_or(|known| key(known) != key(chosen)) {
                self.chosen.insert(place, Chosen { rounds: 0, drafted: 0, ..*chosen });
            }
            self.chosen[place].rounds += chosen.rounds;
            self.chosen[place].drafted += chosen.drafted;
        }
        Ok(())
    }

    fn compare(&mut self, plain: f64) {
        self.speed_ups.extend(self.statistics.last().map(|newest| rate(newest) / plain));
    }

    fn sum(&self, of: impl Fn(&Statistics) -> usize) -> f64 {
        self.statistics.iter().map(of).sum::<usize>() as f64
    }

    fn decode(&self) -> Spread {
        Spread::of(self.statistics.iter().map(rate).collect())
    }

    fn point(self, format: Option<Format>) -> SweepPoint {
        let Draft { exit_layer, num_speculations } = self.draft.expect("a point of the grid");
        let [drafted, accepted, rejected] =
            [self.sum(|s| s.drafted), self.sum(|s| s.accepted), self.sum(|s| s.rejected)];
        let drafts = self.sum(|s| s.drafts).max(1.0);
        let at = |position: usize| self.sum(|s| s.accepted_at[position] as usize) / drafts;
        SweepPoint {
            acceptance_by_position: (0..num_speculations.min(DRAFT_POSITIONS)).map(at).collect(),
            accepted_length: accepted / drafts,
            exit_layer,
            draft_format: format.filter(|_| self.copies),
            num_speculations,
            acceptance_rate: accepted / drafted.max(1.0),
            acceptance_of_next: accepted / (accepted + rejected).max(1.0),
            decode: self.decode(),
            speed_up: Spread::of(self.speed_ups),
        }
    }

    fn auto(self, [of_best, kept_of_best]: [Spread; 2], format: Option<Format>) -> AutoPoint {
        let chosen = self.chosen.iter().map(|&Chosen { exit_layer, copies, rounds, drafted }| {
            let draft_format = format.filter(|_| copies);
            ChosenExit { exit_layer, draft_format, rounds, drafted }
        });
        let chosen = chosen.collect();
        let (drafted, accepted) = (self.sum(|s| s.drafted), self.sum(|s| s.accepted));
        AutoPoint {
            acceptance_rate: (drafted > 0.0).then_some(accepted / drafted),
            decode: self.decode(),
            speed_up: Spread::of(self.speed_ups),
            of_best,
            kept_of_best,
            chosen,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use offramp_model::{Config, Damped, Formats};
    use std::path::Path;

    fn model() -> Arc<Llama> {
        let config = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "vocab_size": 30,
            "num_hidden_layers": 4, "num_attention_heads": 2, "max_position_embeddings": 32}"#;
        let config = Config::from_json(config, Path::new("config.json")).unwrap();
        Arc::new(
            Llama::random_agreeing(config, 1, &Formats::default(), Damped { exit_layer: 2, scale: 0.0 })
                .unwrap(),
        )
    }

    fn options() -> SweepOptions {
        SweepOptions {
            exits: vec![1, 2],
            copied_exits: Vec::new(),
            lengths: vec![1, 3],
            new_tokens: 13,
            runs: 2,
            sampling: SamplingOptions::default(),
            token_limit: None,
            layers: None,
            head: None,
        }
    }

    #[test]
    fn every_point_is_measured() {
        let mut heard = Vec::new();
        let report =
            sweep(&model(), &[vec![1], vec![2, 3]], &options(), &mut |done, all| heard.push((done, all)));
        let report = report.unwrap();
        let points: Vec<_> =
            report.points.iter().map(|point| (point.exit_layer, point.num_speculations)).collect();
        assert_eq!(points, [(1, 1), (1, 3), (2, 1), (2, 3)]);
        let exit_2 = &report.points[3];
        assert_eq!(
            (exit_2.acceptance_rate, exit_2.acceptance_of_next),
            (1.0, 1.0),
            "nothing comes after exit 2"
        );
        assert_eq!((exit_2.accepted_length, exit_2.acceptance_by_position.len()), (3.0, 3));
        let falling = |point: &SweepPoint| point.acceptance_by_position.is_sorted_by(|a, b| a >= b);
        assert!(report.points.iter().all(falling));
        assert!(report.points[1].acceptance_rate <= report.points[1].acceptance_of_next);
        assert!(report.points.iter().all(|point| point.speed_up.median > 0.0 && point.decode.min > 0.0));
        let best = report.points[report.best].speed_up.median;
        assert!(report.points.iter().all(|point| point.speed_up.median <= best));
        let AutoPoint { of_best, kept_of_best, .. } = &report.auto;
        assert!(of_best.min > 0.0 && of_best.median <= of_best.max && kept_of_best.min > 0.0);
        assert_eq!(
            heard,
            (1..=24).map(|done| (done, 24)).collect::<Vec<_>>(),
            "2 × (4 points, auto, 4 plain, 3 again)"
        );
    }

    #[test]
    fn copies_are_swept_beside_the_models_own_layers() {
        let model = model();
        let layers = Some(model.draft_layers(4, Format::Int8).unwrap());
        let options = SweepOptions { copied_exits: vec![2, 4], layers, lengths: vec![2], ..options() };
        let report = sweep(&model, &[vec![1]], &options, &mut |_, _| ()).unwrap();
        let points: Vec<_> =
            report.points.iter().map(|point| (point.exit_layer, point.draft_format)).collect();
        let copy = Some(Format::Int8);
        assert_eq!(points, [(1, None), (2, None), (2, copy), (4, copy)]);
        assert!(report.points[3].acceptance_of_next > 0.5, "all layers in eight bits");
    }

    #[test]
    fn what_cannot_be_swept_is_refused() {
        let refused = |options: SweepOptions| sweep(&model(), &[vec![1]], &options, &mut |_, _| ()).is_err();
        assert!(refused(SweepOptions { exits: vec![5], ..options() }));
        assert!(refused(SweepOptions { exits: vec![], ..options() }));
        assert!(refused(SweepOptions { copied_exits: vec![2], ..options() }));
        assert!(refused(SweepOptions { lengths: vec![0], ..options() }));
        assert!(refused(SweepOptions { new_tokens: 32, ..options() }));
        assert!(refused(SweepOptions { runs: 0, ..options() }));
    }
}
