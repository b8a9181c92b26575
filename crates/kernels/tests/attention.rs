//! Attention in every table: its formula in `f64`, whatever the sizes and scores; and the promise that no
//! other token of a call, and nothing beyond a token's own position, changes a bit.

use offramp_kernels::attend::{Attend, BLOCK, BlockMut, Blocks, block_len};
use offramp_kernels::{ColumnsMut, Table, available, f16};
use proptest::prelude::*;

fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    (0..len)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// One head's cache, block after block.
#[derive(Clone, Copy)]
enum Cache<'a> {
    F32(&'a [f32]),
    F16(&'a [f16]),
}

impl Cache<'_> {
    fn with_blocks(self, head_dim: usize, work: impl FnOnce(Blocks<'_>)) {
        match self {
            Self::F32(cache) => work(Blocks::F32(&cache.chunks(block_len(head_dim)).collect::<Vec<_>>())),
            Self::F16(cache) => work(Blocks::F16(&cache.chunks(block_len(head_dim)).collect::<Vec<_>>())),
        }
    }
}

/// Writes a position of a cache of one head.
fn put<T>(block: fn(&mut [T]) -> BlockMut<'_>, cache: &mut [T], position: usize, key: &[f32], value: &[f32]) {
    let of_block = &mut cache[position / BLOCK * block_len(key.len())..][..block_len(key.len())];
    block(of_block).put(position % BLOCK, key, value);
}

fn f32_block(block: &mut [f32]) -> BlockMut<'_> {
    BlockMut::F32(block)
}

fn f16_block(block: &mut [f16]) -> BlockMut<'_> {
    BlockMut::F16(block)
}

/// A text that attends to itself: what a model would have computed of it.
struct Text {
    heads: usize,
    head_dim: usize,
    queries: Vec<f32>, // [positions, heads, head_dim]
    keys: Vec<f32>,    // [positions, head_dim]
    values: Vec<f32>,  // [positions, head_dim]
    window: Option<usize>,
}

impl Text {
    fn new((positions, heads, head_dim): (usize, usize, usize), seed: u32) -> Self {
        let queries = numbers(positions * heads * head_dim, seed);
        let [keys, values] = [1, 2].map(|i| numbers(positions * head_dim, seed + i));
        Self { heads, head_dim, queries, keys, values, window: None }
    }

    fn rounded_to_f16(mut self) -> Self {
        self.keys.iter_mut().chain(&mut self.values).for_each(|x| *x = f16::from_f32(*x).to_f32());
        self
    }

    /// The cache of so many positions; what was never written is no number.
    fn cache(&self, positions: usize) -> (Vec<f32>, Vec<f16>) {
        let len = positions.div_ceil(BLOCK) * block_len(self.head_dim);
        let (mut f32s, mut f16s) = (vec![f32::NAN; len], vec![f16::NAN; len]);
        let rows = self.keys.chunks(self.head_dim).zip(self.values.chunks(self.head_dim));
        for (position, (key, value)) in rows.take(positions).enumerate() {
            put(f32_block, &mut f32s, position, key, value);
            put(f16_block, &mut f16s, position, key, value);
        }
        (f32s, f16s)
    }

    /// The tokens from `first` on, in one call.
    fn attend(&self, table: &Table, cache: Cache<'_>, first: usize, tokens: usize) -> Vec<f32> {
        let stride = self.heads * self.head_dim;
        let mut out = vec![f32::NAN; tokens * stride];
        let queries = &self.queries[first * stride..][..tokens * stride];
        cache.with_blocks(self.head_dim, |cache| {
            let (head_dim, window) = (self.head_dim, self.window);
            let job = Attend { queries, stride, head_dim, first, window, cache, kv_head: 0 };
            (table.attend)(&job, ColumnsMut::new(&mut out, stride));
        });
        out
    }

    /// In `f64`: the result, and by how much rounded scores may change it.
    fn expected(&self, position: usize, head: usize) -> (Vec<f64>, f64) {
        let row = |x: &[f32], i: usize| -> Vec<f64> {
            x[i * self.head_dim..][..self.head_dim].iter().map(|&x| f64::from(x)).collect()
        };
        let query = row(&self.queries, position * self.heads + head);
        let (mut scores, mut size) = (Vec::new(), 1f64);
        let seen = self.window.map_or(0, |window| (position + 1).saturating_sub(window))..=position;
        for p in seen.clone() {
            let terms = || row(&self.keys, p).into_iter().zip(&query).map(|(k, q)| k * q);
            scores.push(terms().sum::<f64>());
            size = size.max(terms().map(f64::abs).sum());
        }
        let max = scores.iter().fold(f64::NEG_INFINITY, |max, &s| max.max(s));
        let total: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let mut out = vec![0.0; self.head_dim];
        for (p, score) in seen.zip(&scores) {
            let weight = (score - max).exp() / total;
            out.iter_mut().zip(row(&self.values, p)).for_each(|(out, value)| *out += weight * value);
        }
        (out, size)
    }

    #[track_caller]
    fn check(&self, table: &Table, first: usize, tokens: usize, got: &[f32]) {
        for (t, got) in got.chunks(self.heads * self.head_dim).take(tokens).enumerate() {
            for (head, got) in got.chunks(self.head_dim).enumerate() {
                let (expected, size) = self.expected(first + t, head);
                for (d, (&got, expected)) in got.iter().zip(expected).enumerate() {
                    let error = (f64::from(got) - expected).abs();
                    let position = first + t;
                    assert!(
                        error <= 1e-6 * size * expected.abs().max(1.0),
                        "{} at position {position}, head {head}, {d}: {got} for {expected}",
                        table.name
                    );
                }
            }
        }
    }
}

fn head_dim() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..50, Just(64), Just(80), Just(128)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn it_is_softmax_attention(
        (heads, head_dim) in (1usize..10, head_dim()),
        (first, tokens) in (prop_oneof![0usize..3, 20usize..100], 1usize..40),
        scale in prop_oneof![Just(0.0f32), Just(0.2), Just(5.0), Just(1e4)],
        window in prop::option::of(prop_oneof![1usize..4, 30usize..70]),
        seed in 0u32..1_000_000,
    ) {
        let mut text = Text::new((first + tokens, heads, head_dim), seed);
        text.window = window;
        text.queries.iter_mut().for_each(|q| *q *= scale);
        let text = text.rounded_to_f16();
        let (f32s, f16s) = text.cache(first + tokens);
        for table in available() {
            let wide = text.attend(table, Cache::F32(&f32s), first, tokens);
            text.check(table, first, tokens, &wide);
            let narrow = text.attend(table, Cache::F16(&f16s), first, tokens);
            prop_assert_eq!(wide, narrow, "the same keys and values, in half the bytes");
        }
    }

    #[test]
    fn nobody_elses_tokens_change_it(
        (heads, head_dim) in (1usize..10, head_dim()),
        cuts in prop::collection::vec(1usize..50, 1..8),
        window in prop::option::of(prop_oneof![1usize..4, 30usize..70]),
        seed in 0u32..1_000_000,
    ) {
        let positions = cuts.iter().sum();
        let mut text = Text::new((positions, heads, head_dim), seed);
        text.window = window;
        text.queries.iter_mut().for_each(|q| *q *= 4.0);
        for table in available() {
            let (f32s, f16s) = text.cache(positions);
            let wholes = [Cache::F32(&f32s), Cache::F16(&f16s)];
            let wholes = wholes.map(|cache| text.attend(table, cache, 0, positions));
            let mut first = 0;
            let row = heads * head_dim;
            for &tokens in &cuts {
                // The cache as it is before later tokens come.
                let (f32s, f16s) = text.cache(first + tokens);
                for (cache, whole) in [Cache::F32(&f32s), Cache::F16(&f16s)].into_iter().zip(&wholes) {
                    let part = text.attend(table, cache, first, tokens);
                    prop_assert!(same(&part, &whole[first * row..][..part.len()]), "{}: {tokens} from {first}", table.name);
                }
                first += tokens;
            }
        }
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits() && !a.is_nan())
}

#[test]
fn a_head_alone_and_one_of_many_are_the_same() {
    let text = Text::new((70, 7, 48), 5);
    let (f32s, _) = text.cache(70);
    for table in available() {
        let whole = text.attend(table, Cache::F32(&f32s), 3, 67);
        for head in 0..7 {
            let mut out = vec![f32::NAN; 67 * 48];
            let queries = &text.queries[(3 * 7 + head) * 48..];
            Cache::F32(&f32s).with_blocks(48, |cache| {
                let (first, window) = (3, None);
                let job = Attend { queries, stride: 7 * 48, head_dim: 48, first, window, cache, kv_head: 0 };
                (table.attend)(&job, ColumnsMut::new(&mut out, 48));
            });
            for (out, whole) in out.chunks(48).zip(whole.chunks(7 * 48)) {
                assert!(same(out, &whole[head * 48..][..48]), "{} head {head}", table.name);
            }
        }
    }
}

#[test]
fn what_later_positions_hold_does_not_matter() {
    let text = Text::new((50, 4, 32), 9);
    for table in available() {
        let (clean, _) = text.cache(40);
        let expected = text.attend(table, Cache::F32(&clean), 33, 7);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, 1e-45] {
            let (mut cache, _) = text.cache(50);
            for position in 40..2 * BLOCK {
                put(f32_block, &mut cache, position, &[bad; 32], &[bad; 32]);
            }
            // Alone, and with tokens behind it that do see them.
            for tokens in [7, 17] {
                let got = text.attend(table, Cache::F32(&cache), 33, tokens);
                assert!(same(&got[..expected.len()], &expected), "{}: {bad} leaks", table.name);
            }
        }
        // Forgotten and written again.
        let (mut cache, _) = text.cache(50);
        for position in 35..40 {
            put(f32_block, &mut cache, position, &[7.0; 32], &[f32::NAN; 32]);
        }
        for position in 35..40 {
            let of = position * 32..(position + 1) * 32;
            put(f32_block, &mut cache, position, &text.keys[of.clone()], &text.values[of]);
        }
        assert!(same(&text.attend(table, Cache::F32(&cache), 33, 7), &expected), "{}", table.name);
    }
}

#[test]
fn extreme_scores_stay_what_they_are() {
    for table in available() {
        // Whichever position wins by far, in whichever block, takes everything.
        for winner in [0, 1, 31, 32, 63, 64, 99] {
            for (least, most) in [(-1e4, 1e4), (0.0, 1e4), (-1e4, 0.0), (-1e30, 1e30), (-f32::MAX, f32::MAX)]
            {
                let mut text = Text::new((100, 2, 16), 3);
                text.queries.fill(0.0);
                text.queries.iter_mut().step_by(16).for_each(|q| *q = 1.0);
                text.keys
                    .chunks_mut(16)
                    .enumerate()
                    .for_each(|(p, key)| key[0] = if p == winner { most } else { least });
                let (f32s, _) = text.cache(100);
                let got = text.attend(table, Cache::F32(&f32s), 99, 1);
                assert_eq!(
                    got[..16],
                    text.values[winner * 16..][..16],
                    "{} {winner} {least} {most}",
                    table.name
                );
            }
        }
        // Equal scores are a mean, however large they are.
        for score in [-1e4, 0.0, 1e4, 1e38] {
            let mut text = Text::new((100, 1, 2), 3);
            text.queries.fill(1.0);
            text.keys.chunks_mut(2).for_each(|key| key.copy_from_slice(&[score, 0.0]));
            let (f32s, _) = text.cache(100);
            let got = text.attend(table, Cache::F32(&f32s), 99, 1);
            for (d, got) in got.into_iter().enumerate() {
                let mean = text.values.iter().skip(d).step_by(2).map(|&v| f64::from(v)).sum::<f64>() / 100.0;
                assert!((f64::from(got) - mean).abs() < 1e-6, "{} {score}: {got} for {mean}", table.name);
            }
        }
        // What is no number is not hidden, wherever it stands and whatever its bits.
        for bits in [0x7fc0_0000, 0x7fc0_0001, 0xffc5_4321, 0x7f80_0000] {
            for position in [0, 40, 99] {
                let mut text = Text::new((100, 1, 16), 3);
                text.queries.fill(1.0);
                text.keys[position * 16] = f32::from_bits(bits);
                let (f32s, _) = text.cache(100);
                let got = text.attend(table, Cache::F32(&f32s), 99, 1);
                assert!(got.iter().all(|x| x.is_nan()), "{} hides {bits:#x} at {position}", table.name);
            }
        }
    }
}

#[test]
fn every_half_is_widened_exactly() {
    const DIM: usize = 1 << 12;
    for table in available() {
        for start in (0..=u16::MAX).step_by(DIM) {
            let halves: Vec<f16> = (0..DIM as u16).map(|i| f16::from_bits(start + i)).collect();
            let mut blocks = vec![f16::ZERO; block_len(DIM)];
            blocks[BLOCK * DIM..][..DIM].copy_from_slice(&halves);
            let mut out = vec![0.0; DIM];
            Cache::F16(&blocks).with_blocks(DIM, |cache| {
                let (queries, first, window) = (&vec![0.0; DIM][..], 0, None);
                let job = Attend { queries, stride: DIM, head_dim: DIM, first, window, cache, kv_head: 0 };
                (table.attend)(&job, ColumnsMut::new(&mut out, DIM));
            });
            for (half, out) in halves.iter().zip(out) {
                let expected = half.to_f32();
                assert!(
                    out == expected || (out.is_nan() && expected.is_nan()),
                    "{} {half:?}: {out}",
                    table.name
                );
            }
        }
    }
}

#[test]
fn narrowing_is_that_of_ieee() {
    let values: Vec<f32> = (0..1u32 << 16).map(|i| f32::from_bits(i.wrapping_mul(65_537))).collect();
    let mut blocks = vec![f16::ZERO; block_len(64)];
    for value in values.chunks(64) {
        put(f16_block, &mut blocks, 5, value, value);
        let (keys, rows) = blocks.split_at(BLOCK * 64);
        for (d, &value) in value.iter().enumerate() {
            let expected = f16::from_f32_const(value).to_bits();
            for got in [keys[d * BLOCK + 5], rows[5 * 64 + d]] {
                assert!(got.to_bits() == expected || (got.is_nan() && value.is_nan()), "{value:e}: {got}");
            }
        }
    }
}

#[test]
#[should_panic(expected = "blocks for 33 positions")]
fn a_cache_that_is_too_short_is_refused() {
    let text = Text::new((33, 1, 8), 1);
    let (f32s, _) = text.cache(32);
    text.attend(available()[0], Cache::F32(&f32s), 32, 1);
}
