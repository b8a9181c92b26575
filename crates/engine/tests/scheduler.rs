//! Many texts at once: each has the tokens that it has alone, whoever joins and leaves beside it and however
//! it is drafted; and no text waits for ever, or takes more memory than there is.

use offramp_engine::{
    Adaptive, Completion, ConfidenceExit, Constraint, Draft, Error, GenerateOptions, Logprobs, NewToken,
    Request, SamplingOptions, Scheduler, SchedulerOptions, Session, Speculation, StopReason, TextId,
    Workspace, generate,
};
use offramp_model::{CacheFormat, Config, Damped, Format, Formats, Llama};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

const LAYERS: usize = 6;
const VOCAB: u32 = 61;
/// Sets of texts for each format.
const SEEDS: usize = 3;

fn model(formats: &Formats) -> Arc<Llama> {
    let config = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "vocab_size": 61,
        "num_hidden_layers": 6, "num_attention_heads": 2, "max_position_embeddings": 512}"#;
    let config = Config::from_json(config, Path::new("config.json")).expect("a valid config");
    let damped = Damped { exit_layer: 2, scale: 0.3 };
    Arc::new(Llama::random_agreeing(config, 5, formats, damped).expect("a small model"))
}

/// Odd tokens only after an odd number of tokens, and even ones after an even number.
#[derive(Clone, Copy, Debug)]
struct EvenAfterOdd;

impl Constraint for EvenAfterOdd {
    fn allow(&mut self, tokens: &[u32], allowed: &mut [u32]) {
        allowed.fill(if tokens.len() % 2 == 1 { 0xAAAA_AAAA } else { 0x5555_5555 });
    }

    fn duplicate(&self) -> Box<dyn Constraint> {
        Box::new(*self)
    }
}

/// A request of any kind.
fn request(random: &mut ChaCha8Rng) -> Request {
    let len = if random.random_range(0..4) == 0 {
        random.random_range(30..200)
    } else {
        1 + random.random_range(0..9)
    };
    // Some begin alike.
    let start = random.random_range(0..3u32);
    let prompt =
        (0..len).map(|i| if i < 40 { (i * 7 + start) % VOCAB } else { random.random_range(0..VOCAB) });
    let prompt: Vec<u32> = prompt.collect();
    let exit_layer = if random.random_range(0..3) == 0 { random.random_range(3..=LAYERS) } else { LAYERS };
    let speculation = match random.random_range(0..6) {
        0 => Speculation::fixed(Draft { exit_layer: random.random_range(1..=2), num_speculations: 4 }),
        1 => Speculation::fixed(Draft { exit_layer: 2, num_speculations: random.random_range(0..9) }),
        2 => Speculation::auto(Adaptive::by_bytes()),
        3 => Speculation::auto(Adaptive::default()),
        _ => Speculation::off(),
    };
    let confidence = (random.random_range(0..3) == 0)
        .then(|| ConfidenceExit { exits: vec![1, 2], threshold: random.random_range(0..3) as f32 * 0.02 });
    let speculation = if confidence.is_some() { Speculation::off() } else { speculation };
    let sampling = SamplingOptions {
        temperature: random.random_range(0..3) as f32 / 2.0,
        top_k: random.random_range(0..2) * 20,
        top_p: if random.random_range(0..2) == 0 { 1.0 } else { 0.9 },
        repetition_penalty: if random.random_range(0..3) == 0 { 1.2 } else { 1.0 },
        min_p: random.random_range(0..3) as f32 * 0.01,
        presence_penalty: random.random_range(0..2) as f32 * 0.1,
        frequency_penalty: random.random_range(0..2) as f32 * 0.1,
        seed: random.random_range(0..100),
    };
    let sometimes = |random: &mut ChaCha8Rng| (random.random_range(0..3) == 0).then_some(2);
    let even = || Box::new(EvenAfterOdd) as Box<dyn Constraint>;
    let options = GenerateOptions {
        max_new_tokens: random.random_range(0..30),
        stop_tokens: vec![random.random_range(0..VOCAB)],
        token_limit: None,
        sampling,
        logit_bias: sometimes(random).map(|_| (7, 0.5)).into_iter().collect(),
        constraint: (random.random_range(0..4) == 0).then(even),
        logprobs: sometimes(random),
        prompt_logprobs: sometimes(random),
    };
    Request { prompt, exit_layer, confidence, speculation, options }
}

/// What comes of a request in a session of its own.
fn alone(model: &Arc<Llama>, request: &Request) -> Completion {
    let mut session = Session::new(model, 300).expect("memory");
    session.set_exit_layer(request.exit_layer).expect("an exit");
    session.set_confidence_exit(request.confidence.clone()).expect("exits");
    let Request { prompt, options, .. } = request;
    let mut go_on = |_| ControlFlow::Continue(());
    // Drafts change nothing, so that they are left out here.
    let mut off = Speculation::off();
    generate(&mut session, prompt, options, &mut off, &mut Workspace::new(), &mut go_on)
        .expect("a good request")
}

/// The depth of each of its tokens, and how likely it is.
fn depths_alone(model: &Arc<Llama>, request: &Request) -> Vec<(usize, Option<Logprobs>)> {
    let mut session = Session::new(model, 300).expect("memory");
    session.set_exit_layer(request.exit_layer).expect("an exit");
    session.set_confidence_exit(request.confidence.clone()).expect("exits");
    let mut heard = Vec::new();
    let mut listen = |token: NewToken| {
        heard.push((token.depth, token.logprobs));
        ControlFlow::Continue(())
    };
    let mut off = Speculation::off();
    let Request { prompt, options, .. } = request;
    generate(&mut session, prompt, options, &mut off, &mut Workspace::new(), &mut listen)
        .expect("a good request");
    heard
}

/// Runs requests that join at random; what came of each.
fn together(
    scheduler: &mut Scheduler,
    requests: &[Request],
    random: &mut ChaCha8Rng,
) -> Vec<(Completion, Vec<NewToken>)> {
    let mut ids: BTreeMap<TextId, usize> = BTreeMap::new();
    let mut found: Vec<Option<Completion>> = vec![None; requests.len()];
    let mut heard = vec![Vec::new(); requests.len()];
    let mut next = 0;
    while next < requests.len() || !scheduler.is_idle() {
        while next < requests.len() && random.random_range(0..3) > 0 {
            ids.insert(scheduler.add(requests[next].clone()).expect("a good request"), next);
            next += 1;
        }
        for progressed in scheduler.step() {
            let index = ids[&progressed.id];
            heard[index].extend(progressed.tokens);
            if let Some(ended) = progressed.ended {
                assert!(found[index].is_none(), "a text ends once");
                found[index] = Some(ended.unwrap_or_else(|error| panic!("{error}: {:?}", requests[index])));
            }
        }
        assert!(scheduler.pool().used() <= scheduler.pool().capacity());
    }
    assert_eq!(scheduler.texts(), (0, 0));
    if scheduler.kept_positions() == 0 {
        assert_eq!(scheduler.pool().used(), 0, "who leaves takes nothing along");
    }
    found.into_iter().map(|one| one.expect("every text ends")).zip(heard).collect()
}

#[test]
fn a_texts_tokens_do_not_depend_on_who_runs_beside_it() {
    let cases = Format::ALL.map(|format| (format, CacheFormat::F32));
    let cases = cases.into_iter().chain([(Format::Int8, CacheFormat::F16)]);
    for (case, (format, kv_cache)) in cases.flat_map(|case| [case; SEEDS]).enumerate() {
        let model = model(&Formats { kv_cache, ..Formats::all(format) });
        let mut random = ChaCha8Rng::seed_from_u64(case as u64);
        let requests: Vec<Request> = (0..40).map(|_| request(&mut random)).collect();
        for (kv_positions, max_num_batched_tokens, max_num_seqs, prefix_caching) in
            [(20_000, 64, 64, false), (600, 16, 5, false), (600, 48, 5, true)]
        {
            let options =
                SchedulerOptions { kv_positions, max_num_batched_tokens, max_num_seqs, prefix_caching };
            let mut scheduler = Scheduler::new(&model, options).expect("memory");
            let found = together(&mut scheduler, &requests, &mut random);
            for ((request, (completion, heard)), index) in requests.iter().zip(found).zip(0..) {
                let expected = alone(&model, request);
                assert_eq!(completion.tokens, expected.tokens, "{format}, text {index}: {request:?}");
                assert_eq!(completion.reason, expected.reason, "{format}, text {index}: {request:?}");
                let ids: Vec<u32> = heard.iter().map(|token| token.id).collect();
                assert_eq!(ids, completion.tokens, "each token is handed out once, in order");
                assert_eq!(completion.prompt_logprobs, expected.prompt_logprobs, "{format}: {request:?}");
                let logprobs: Vec<_> = heard.into_iter().map(|token| (token.depth, token.logprobs)).collect();
                assert_eq!(logprobs, depths_alone(&model, request), "{format}: {request:?}");
            }
        }
    }
}

fn plain(prompt: &[u32], max_new_tokens: usize) -> Request {
    let sampling = SamplingOptions::default();
    let options = GenerateOptions { max_new_tokens, sampling, ..GenerateOptions::default() };
    let speculation = Speculation::off();
    Request { prompt: prompt.to_vec(), exit_layer: LAYERS, confidence: None, speculation, options }
}

#[test]
fn a_long_prompt_does_not_stop_the_others() {
    let model = model(&Formats::default());
    let options = SchedulerOptions {
        kv_positions: 2000,
        max_num_batched_tokens: 32,
        max_num_seqs: 8,
        prefix_caching: false,
    };
    let mut scheduler = Scheduler::new(&model, options).expect("memory");
    let short = scheduler.add(plain(&[1, 2], 40)).expect("a good request");
    scheduler.step();
    let long: Vec<u32> = (0..400).map(|i| i % VOCAB).collect();
    let long = scheduler.add(plain(&long, 5)).expect("a good request");
    let mut steps = 0;
    loop {
        let progressed = scheduler.step();
        assert_eq!(progressed.iter().filter(|one| one.id == short).count(), 1, "a token in every step");
        steps += 1;
        if progressed.iter().any(|one| one.id == long) {
            break;
        }
    }
    assert_eq!(steps, 400usize.div_ceil(31), "pieces that fill the budget beside the other text's row");
}

#[test]
fn texts_that_begin_alike_share_blocks() {
    let model = model(&Formats::default());
    let options = SchedulerOptions {
        kv_positions: 320,
        max_num_batched_tokens: 512,
        max_num_seqs: 64,
        prefix_caching: false,
    };
    let mut scheduler = Scheduler::new(&model, options).expect("memory");
    let system: Vec<u32> = (0..100).map(|i| (i * 7) % VOCAB).collect();
    let first = [&system[..], &[1]].concat();
    scheduler.add(plain(&first, 27)).expect("a good request");
    scheduler.step();
    // Each alone needs 128 positions, and 320 are not enough for three of them.
    for token in 2..4 {
        scheduler.add(plain(&[&system[..], &[token]].concat(), 27)).expect("a good request");
    }
    scheduler.step();
    assert_eq!(scheduler.texts(), (3, 0), "three blocks are shared: 128 + 32 + 32 positions fit");
    assert!(scheduler.pool().used() <= 320);
    while !scheduler.is_idle() {
        scheduler.step();
    }
    assert_eq!(scheduler.pool().available(), 320);
}

#[test]
fn what_can_never_run_is_refused_at_once_and_who_leaves_leaves_nothing() {
    let model = model(&Formats::default());
    let options = SchedulerOptions {
        kv_positions: 96,
        max_num_batched_tokens: 16,
        max_num_seqs: 2,
        prefix_caching: false,
    };
    let mut scheduler = Scheduler::new(&model, options).expect("memory");
    let refused = |request: Request, scheduler: &mut Scheduler| scheduler.add(request).expect_err("refused");
    assert!(matches!(
        refused(plain(&[1; 90], 7), &mut scheduler),
        Error::ContextFull { tokens: 97, context: 96 }
    ));
    assert!(matches!(refused(plain(&[], 7), &mut scheduler), Error::NoTokens));
    refused(plain(&[VOCAB], 7), &mut scheduler);
    refused(Request { exit_layer: LAYERS + 1, ..plain(&[1], 7) }, &mut scheduler);
    let both = Request {
        confidence: Some(ConfidenceExit { exits: vec![1], threshold: 1.0 }),
        speculation: Speculation::fixed(Draft { exit_layer: 1, num_speculations: 2 }),
        ..plain(&[1], 7)
    };
    assert!(matches!(refused(both, &mut scheduler), Error::ConfidenceWithDrafts));
    assert!(scheduler.is_idle());
    let runs = scheduler.add(plain(&[1, 2, 3], 61)).expect("two of three blocks");
    let waits = scheduler.add(plain(&[4, 5], 60)).expect("two of three blocks, later");
    (0..3).for_each(|_| drop(scheduler.step()));
    assert_eq!(scheduler.texts(), (1, 1));
    assert!(scheduler.remove(waits).is_none());
    let left = scheduler.remove(runs).expect("it ran");
    assert_eq!((left.tokens.len(), left.reason), (3, StopReason::Stopped));
    assert_eq!(left.tokens, alone(&model, &plain(&[1, 2, 3], 61)).tokens[..3]);
    assert!(scheduler.is_idle() && scheduler.pool().available() == 96);
    assert!(scheduler.step().is_empty());
}

/// Exits that are probed differ from text to text, and from the exit that drafts: each token is taken once.
#[test]
fn texts_that_draft_and_probe_at_different_depths_have_the_tokens_that_they_have_alone() {
    let config = r#"{"model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "vocab_size": 61,
        "num_hidden_layers": 24, "num_attention_heads": 2, "max_position_embeddings": 512}"#;
    let config = Config::from_json(config, Path::new("config.json")).expect("a valid config");
    let damped = Damped { exit_layer: 8, scale: 0.02 };
    let model = Llama::random_agreeing(config, 5, &Formats::default(), damped).expect("a small model");
    let model = Arc::new(model);
    let options = SchedulerOptions {
        kv_positions: 20_000,
        max_num_batched_tokens: 512,
        max_num_seqs: 64,
        prefix_caching: false,
    };
    let mut scheduler = Scheduler::new(&model, options).expect("memory");
    let requests = (0..24u32).map(|text| {
        let prompt: Vec<u32> = (0..3 + text % 5).map(|i| (i * 7 + text * 3) % VOCAB).collect();
        let auto = if text % 3 == 0 { Adaptive::default() } else { Adaptive::by_bytes() };
        Request { exit_layer: 24, speculation: Speculation::auto(auto), ..plain(&prompt, 150) }
    });
    let requests: Vec<Request> = requests.collect();
    let mut random = ChaCha8Rng::seed_from_u64(1);
    for (request, (completion, _)) in requests.iter().zip(together(&mut scheduler, &requests, &mut random)) {
        assert_eq!(completion.tokens, alone(&model, request).tokens, "{:?}", request.prompt);
    }
}

#[test]
fn what_ended_texts_leave_is_taken_over_and_given_up_for_others() {
    let model = model(&Formats::default());
    let options = SchedulerOptions {
        kv_positions: 256,
        max_num_batched_tokens: 512,
        max_num_seqs: 8,
        prefix_caching: true,
    };
    let mut scheduler = Scheduler::new(&model, options).expect("memory");
    let run = |scheduler: &mut Scheduler, request: &Request| {
        scheduler.add(request.clone()).expect("a good request");
        loop {
            if let Some(ended) = scheduler.step().into_iter().find_map(|one| one.ended) {
                return ended.expect("a good request");
            }
        }
    };
    let system: Vec<u32> = (0..100).map(|i| (i * 7) % VOCAB).collect();
    let first = plain(&[&system[..], &[1]].concat(), 20);
    assert_eq!(run(&mut scheduler, &first).statistics.cached_tokens, 0);
    assert_eq!(scheduler.kept_positions(), 96, "full blocks of 120 positions");
    for token in 2..5 {
        let next = plain(&[&system[..], &[token]].concat(), 20);
        let found = run(&mut scheduler, &next);
        assert_eq!(found.statistics.cached_tokens, 96);
        assert_eq!(found.tokens, alone(&model, &next).tokens);
    }
    let shallow = Request { exit_layer: 3, ..first.clone() };
    assert_eq!(run(&mut scheduler, &shallow).statistics.cached_tokens, 96, "deeper layers know more");
    let whole = plain(&[9; 200], 56);
    assert_eq!(run(&mut scheduler, &whole).tokens, alone(&model, &whole).tokens);
    assert!(scheduler.kept_positions() <= 256 && scheduler.pool().used() <= 256);
    assert_eq!(
        run(&mut scheduler, &first).tokens,
        alone(&model, &first).tokens,
        "what was given up is computed again"
    );
}
