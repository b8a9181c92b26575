//! Attention of many texts in one call, over threads: each text is what it is alone, row by row, on one
//! thread.

use offramp_kernels::attend::{AttentionHeads, AttentionText, BLOCK, Blocks, block_len};

fn numbers(len: usize, seed: u32) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / (1 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

/// Rows and the position of the first, of texts in every phase.
const TEXTS: [(usize, usize); 8] =
    [(1, 0), (1, 75), (130, 0), (5, 31), (64, 200), (1, 300), (33, 64), (2, 1)];

#[test]
fn a_text_beside_others_is_that_text_alone() {
    for window in [None, Some(40)] {
        let heads = AttentionHeads { kv_heads: 2, group: 3, head_dim: 20, window };
        let width = heads.kv_heads * heads.group * heads.head_dim;
        let block = heads.kv_heads * block_len(heads.head_dim);
        let caches: Vec<Vec<Vec<f32>>> = (0..)
            .zip(TEXTS)
            .map(|(seed, (rows, first))| {
                (0..(first + rows).div_ceil(BLOCK) as u32).map(|b| numbers(block, 100 * seed + b)).collect()
            })
            .collect();
        let slices: Vec<Vec<&[f32]>> =
            caches.iter().map(|cache| cache.iter().map(Vec::as_slice).collect()).collect();
        let texts: Vec<AttentionText<'_>> = TEXTS
            .iter()
            .zip(&slices)
            .map(|(&(rows, first), blocks)| AttentionText { rows, first, cache: Blocks::F32(blocks) })
            .collect();
        let all: usize = TEXTS.iter().map(|(rows, _)| rows).sum();
        let queries = numbers(all * width, 7);
        let mut together = vec![f32::NAN; queries.len()];
        heads.attend(&queries, &texts, &mut together);
        let mut row = 0;
        for (text, phase) in texts.iter().zip(TEXTS) {
            for first in text.first..text.first + text.rows {
                let (mut alone, of_row) = (vec![f32::NAN; width], row * width..(row + 1) * width);
                let one = AttentionText { rows: 1, first, cache: text.cache };
                heads.attend(&queries[of_row.clone()], &[one], &mut alone);
                let same = alone.iter().zip(&together[of_row]).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same && alone.iter().all(|x| x.is_finite()), "{phase:?} at {first}, {window:?}");
                row += 1;
            }
        }
    }
}
