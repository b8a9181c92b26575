//! Many texts in one call: whoever shares it, in whatever phase and order, a text's logits are those of the
//! text alone, bit for bit; and texts that share blocks of a pool do not see each other.

use offramp_kernels::attend::BLOCK;
use offramp_kernels::pool;
use offramp_model::{Batch, BlockPool, CacheFormat, Config, Error, Format, Formats, KvCache, Llama, Scratch};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;

const LAYERS: usize = 4;
const VOCAB: usize = 31;

fn model(formats: &Formats) -> Llama {
    let config = r#"{
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 31,
        "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 10000.0
    }"#;
    let config = Config::from_json(config, Path::new("config.json")).expect("a valid config");
    Llama::random(config, 5, formats).expect("a small model")
}

fn models() -> Vec<(String, Llama)> {
    let cases = Format::ALL.into_iter().flat_map(|layers| CacheFormat::ALL.map(|cache| (layers, cache)));
    let made = cases.map(|(layers, kv_cache)| {
        let formats = Formats { layers: Some(layers), head: None, kv_cache };
        (format!("{layers}, cache in {kv_cache}"), model(&formats))
    });
    made.collect()
}

/// What a text does in a call: so many tokens more, through some of the layers.
#[derive(Clone, Debug)]
struct Text {
    before: usize, // tokens in the cache already
    rows: usize,   // 1: decoding; few: a draft, or its verification; many: a prompt
    from: usize,   // the depth at which its rows stand
    to: usize,
    seed: u32,
}

impl Text {
    fn token(&self, position: usize) -> u32 {
        (position as u32 * (7 + self.seed % 11) + self.seed) % VOCAB as u32
    }

    fn tokens(&self, len: usize) -> Vec<u32> {
        (0..len).map(|position| self.token(position)).collect()
    }

    /// A cache that holds the text so far, and the rows to come, at the depth at which they stand.
    fn begin(&self, model: &Llama, pool: &Arc<BlockPool>) -> (KvCache, offramp_model::Hidden) {
        let mut cache = KvCache::new(pool, self.before + self.rows).expect("blocks");
        let (mut hidden, mut scratch) = (model.new_hidden(), Scratch::new());
        model.embed(&self.tokens(self.before), &mut hidden).expect("ids");
        model.forward(0..LAYERS, &mut hidden, &mut Batch::one(&mut cache), &mut scratch).expect("blocks");
        let rows = &self.tokens(self.before + self.rows)[self.before..];
        model.embed(rows, &mut hidden).expect("ids");
        model.forward(0..self.from, &mut hidden, &mut Batch::one(&mut cache), &mut scratch).expect("blocks");
        (cache, hidden)
    }

    /// The logits of its rows, computed alone.
    fn alone(&self, model: &Llama) -> Vec<f32> {
        let pool = model.new_pool(self.before + self.rows).expect("memory");
        let (mut cache, mut hidden) = self.begin(model, &pool);
        let (mut logits, mut scratch) = (Vec::new(), Scratch::new());
        let layers = self.from..self.to;
        model.forward(layers, &mut hidden, &mut Batch::one(&mut cache), &mut scratch).expect("blocks");
        model.head(&hidden, 0..self.rows, &mut logits, &mut scratch);
        logits
    }
}

fn text() -> impl Strategy<Value = Text> {
    let rows = prop_oneof![4 => Just(1usize), 2 => 2usize..6, 1 => 6usize..80];
    (0usize..100, rows, 0..LAYERS, 1..=LAYERS, any::<u32>()).prop_map(|(before, rows, from, to, seed)| Text {
        before,
        rows,
        from: from.min(to - 1),
        to,
        seed: seed % 1000,
    })
}

/// Moves all texts to their depths, layer by layer, all in one call that stand before that layer.
fn together(model: &Llama, texts: &[Text]) -> Vec<Vec<f32>> {
    let positions: usize = texts.iter().map(|text| (text.before + text.rows).next_multiple_of(BLOCK)).sum();
    let pool = model.new_pool(positions).expect("memory");
    let mut states: Vec<_> = texts.iter().map(|text| text.begin(model, &pool)).collect();
    assert_eq!(pool.available(), 0);
    let (mut hidden, mut scratch) = (model.new_hidden(), Scratch::new());
    for layer in 0..LAYERS {
        let goes = |text: &Text| text.from <= layer && layer < text.to;
        let mut batch = Batch::default();
        hidden.clear();
        for (text, (cache, rows)) in texts.iter().zip(&mut states).filter(|(text, _)| goes(text)) {
            hidden.append(rows, 0..text.rows);
            batch.push(cache, text.rows);
        }
        model.forward(layer..layer + 1, &mut hidden, &mut batch, &mut scratch).expect("blocks");
        let mut first = 0;
        for (text, (_, rows)) in texts.iter().zip(&mut states).filter(|(text, _)| goes(text)) {
            rows.assign(&hidden, first..first + text.rows);
            first += text.rows;
        }
    }
    hidden.clear();
    texts.iter().zip(&states).for_each(|(text, (_, rows))| hidden.append(rows, 0..text.rows));
    let mut logits = Vec::new();
    model.head(&hidden, 0..hidden.tokens(), &mut logits, &mut scratch);
    let mut rest = &logits[..];
    texts.iter().map(|text| rest.split_off(..text.rows * VOCAB).expect("rows of each").to_vec()).collect()
}

/// Each is a batch in every format and cache.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn a_texts_logits_do_not_depend_on_who_shares_the_call(
        texts in prop_oneof![prop::collection::vec(text(), 1..10), prop::collection::vec(text(), 10..=64)],
    ) {
        let _ = pool::set_threads(3); // the first test of this process sets it
        for (name, model) in models() {
            for (text, logits) in texts.iter().zip(together(&model, &texts)) {
                let same = text.alone(&model).iter().zip(&logits).all(|(a, b)| a.to_bits() == b.to_bits());
                prop_assert!(same, "{}: {:?} of {} texts", name, text, texts.len());
            }
        }
    }
}

#[test]
fn in_every_kernels_table() {
    for table in offramp_kernels::available() {
        let status = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "a_texts_logits_do_not_depend_on_who_shares_the_call"])
            .env("OFFRAMP_KERNELS", table.name)
            .env("PROPTEST_CASES", "2")
            .output()
            .expect("this test, again");
        let said = String::from_utf8_lossy(&status.stdout);
        assert!(status.status.success() && said.contains("1 passed"), "{}: {said}", table.name);
    }
}

/// Logits of `tokens`, appended to `cache`.
fn feed(model: &Llama, cache: &mut KvCache, tokens: &[u32]) -> Vec<f32> {
    let (mut hidden, mut logits, mut scratch) = (model.new_hidden(), Vec::new(), Scratch::new());
    model.embed(tokens, &mut hidden).expect("ids");
    model.forward(0..LAYERS, &mut hidden, &mut Batch::one(cache), &mut scratch).expect("blocks");
    model.head(&hidden, 0..tokens.len(), &mut logits, &mut scratch);
    logits
}

#[test]
fn texts_with_the_same_prefix_share_its_blocks_until_they_write() {
    for kv_cache in CacheFormat::ALL {
        let model = model(&Formats { kv_cache, ..Formats::default() });
        let tokens: Vec<u32> = (0..200).map(|i| i * 7 % 31).collect();
        let other: Vec<u32> = (0..200).map(|i| i * 5 % 31).collect();
        for prefix in [1, 31, 32, 33, 64, 70] {
            let pool = model.new_pool(10 * BLOCK).expect("memory");
            let mut first = KvCache::new(&pool, 100).expect("blocks");
            feed(&model, &mut first, &tokens[..80]);
            let held = pool.used();
            let mut second = first.fork(prefix, 100).expect("blocks");
            assert_eq!((pool.used(), second.len(0)), (held, prefix), "nothing is copied yet");
            let found = feed(&model, &mut second, &other[prefix..90]);
            // The first goes on as if nobody had shared anything, and so does the second.
            let rest = feed(&model, &mut first, &tokens[80..100]);
            let mut alone = model.new_cache(100);
            assert!(feed(&model, &mut alone, &tokens[..100])[80 * VOCAB..] == rest);
            alone.clear();
            let whole = feed(&model, &mut alone, &[&tokens[..prefix], &other[prefix..90]].concat());
            assert!(whole[prefix * VOCAB..] == found, "{prefix} shared");
            // What both hold counts once.
            let blocks = 4 + 3 - prefix / BLOCK;
            assert_eq!(pool.used(), blocks * BLOCK, "{prefix} shared");
            drop(first);
            assert_eq!(pool.used(), 3 * BLOCK);
            assert!(feed(&model, &mut second, &[3]).iter().all(|logit| logit.is_finite()));
            drop(second);
            assert_eq!((pool.used(), pool.available()), (0, 10 * BLOCK));
        }
    }
}

#[test]
fn a_pool_never_holds_more_than_it_was_made_for() {
    let model = model(&Formats::default());
    let pool = model.new_pool(4 * BLOCK).expect("memory");
    assert_eq!((pool.capacity(), pool.available(), pool.used()), (4 * BLOCK, 4 * BLOCK, 0));
    let mut first = KvCache::new(&pool, 3 * BLOCK).expect("three of four");
    assert_eq!((pool.available(), pool.used()), (BLOCK, 0), "promised, and not yet taken");
    let refused = KvCache::new(&pool, BLOCK + 1).expect_err("two of one");
    assert!(matches!(refused, Error::PoolFull { wanted: 64, left: 32, capacity: 128 }), "{refused}");
    let mut second = KvCache::new(&pool, BLOCK).expect("the last one");
    feed(&model, &mut first, &[1; 3 * BLOCK]);
    feed(&model, &mut second, &[2; BLOCK]);
    assert_eq!((pool.available(), pool.used()), (0, 4 * BLOCK));
    assert!(first.fork(BLOCK + 1, 2 * BLOCK).is_err(), "a block to go on in");
    // A fork of whole blocks needs none until it is cut back into what it shares.
    let mut fork = first.fork(BLOCK, BLOCK).expect("nothing but what is shared");
    fork.truncate(5);
    let (mut hidden, mut scratch) = (model.new_hidden(), Scratch::new());
    model.embed(&[1], &mut hidden).expect("ids");
    let refused = model.forward(0..LAYERS, &mut hidden, &mut Batch::one(&mut fork), &mut scratch);
    assert!(matches!(refused, Err(Error::PoolFull { .. })));
    assert_eq!(fork.len(0), 5, "nothing has changed");
    drop(second);
    model
        .forward(0..LAYERS, &mut hidden, &mut Batch::one(&mut fork), &mut scratch)
        .expect("a block came back");
    assert_eq!((pool.used(), pool.available()), (4 * BLOCK, 0));
}

#[test]
fn a_text_that_does_not_fit_changes_nothing_of_the_others() {
    let model = model(&Formats::default());
    let (mut fits, mut full) = (model.new_cache(40), model.new_cache(2));
    feed(&model, &mut full, &[1, 2]);
    let (mut hidden, mut scratch) = (model.new_hidden(), Scratch::new());
    model.embed(&[1, 2, 3], &mut hidden).expect("ids");
    let before = hidden.clone();
    let mut batch = Batch::default();
    batch.push(&mut fits, 2);
    batch.push(&mut full, 1);
    let refused = model.forward(0..LAYERS, &mut hidden, &mut batch, &mut scratch);
    assert!(matches!(refused, Err(Error::CacheFull { positions: 3, capacity: 2 })));
    assert_eq!((fits.len(0), full.len(0)), (0, 2));
    assert!(hidden == before);
}
