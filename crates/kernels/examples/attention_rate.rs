//! How fast this machine attends, in one thread: `cargo run --release -p offramp-kernels --example
//! attention_rate`.
//!
//! Heads as the card's: 32 of 64 floats over 8 with keys and values. Each of several layers has a cache of
//! its own, so that decoding does not find it in a near cache.

use offramp_kernels::attend::{Attend, BLOCK, BlockMut, Blocks, block_len};
use offramp_kernels::{ColumnsMut, active, bandwidth, f16, pool};
use std::time::Instant;

const HEAD_DIM: usize = 64;
const KV_HEADS: usize = 8;
const GROUP: usize = 4;
const LAYERS: usize = 24;

fn main() {
    pool::set_threads(1).expect("the first call");
    println!("{}, {:.1} GB/s", active().name, bandwidth::Probe::default().read() / 1e9);
    for positions in [128, 512, 2048] {
        let block = block_len(HEAD_DIM);
        let blocks = positions / BLOCK * block;
        let key: Vec<f32> = (0..HEAD_DIM).map(|d| (d as f32).sin()).collect();
        let mut f32s = vec![0.0; blocks * KV_HEADS * LAYERS];
        let mut f16s = vec![f16::ZERO; f32s.len()];
        for (f32s, f16s) in f32s.chunks_mut(blocks).zip(f16s.chunks_mut(blocks)) {
            for (f32s, f16s) in f32s.chunks_mut(block).zip(f16s.chunks_mut(block)) {
                for lane in 0..BLOCK {
                    BlockMut::F32(f32s).put(lane, &key, &key);
                    BlockMut::F16(f16s).put(lane, &key, &key);
                }
            }
        }
        let f32s: Vec<Vec<_>> = f32s.chunks(blocks).map(|head| head.chunks(block).collect()).collect();
        let f16s: Vec<Vec<_>> = f16s.chunks(blocks).map(|head| head.chunks(block).collect()).collect();
        let in_f32: Vec<_> = f32s.iter().map(|head| Blocks::F32(head)).collect();
        let in_f16: Vec<_> = f16s.iter().map(|head| Blocks::F16(head)).collect();
        for (name, caches) in [("f32", in_f32), ("f16", in_f16)] {
            let decode = seconds(&caches, positions - 1, 1) / LAYERS as f64;
            let prefill = seconds(&caches[..KV_HEADS], 0, positions);
            let flops = (4 * HEAD_DIM * KV_HEADS * GROUP * positions * (positions + 1) / 2) as f64;
            println!(
                "{positions:5} positions in {name}: a token {:7.1} µs a layer; prefill {:6.1} GFLOP/s",
                decode * 1e6,
                flops / prefill / 1e9
            );
        }
    }
}

/// The median time that `tokens` from position `first` on need for all caches.
fn seconds(caches: &[Blocks<'_>], first: usize, tokens: usize) -> f64 {
    let stride = KV_HEADS * GROUP * HEAD_DIM;
    let queries: Vec<f32> = (0..tokens * stride).map(|i| (i as f32).sin() / 8.0).collect();
    let mut out = vec![0.0; tokens * GROUP * HEAD_DIM];
    let mut times: Vec<f64> = (0..9)
        .map(|_| {
            let began = Instant::now();
            for (head, &cache) in (0..KV_HEADS).cycle().zip(caches) {
                let queries = &queries[head * GROUP * HEAD_DIM..];
                let (head_dim, window, kv_head) = (HEAD_DIM, None, 0);
                let job = Attend { queries, stride, head_dim, first, window, cache, kv_head };
                (active().attend)(&job, ColumnsMut::new(&mut out, GROUP * HEAD_DIM));
            }
            began.elapsed().as_secs_f64()
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
