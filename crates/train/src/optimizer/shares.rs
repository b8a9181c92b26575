//! The part of the weights that each rank moves (ZeRO stage 1, Rajbhandari et al. 2020): it alone has their
//! moments. A matrix that Muon moves is whole on one rank, and a piece of the norm is summed by one rank.

use super::muon;
use crate::ops::values::PIECE;
use crate::parameters::Layout;
use crate::recipe::{Matrices, OptimizerKeys};
use offramp_ranks::Share;
use std::collections::BTreeSet;
use std::ops::Range;

/// The pieces of a buffer whose squares are summed one by one: no piece lies in two tensors.
pub(super) fn pieces(layout: &Layout) -> Vec<Range<usize>> {
    let of_tensor = |range: Range<usize>| {
        let end = range.end;
        range.step_by(PIECE).map(move |start| start..(start + PIECE).min(end))
    };
    layout.tensors().flat_map(|(_, range)| of_tensor(range)).collect()
}

/// A share for each of `ranks`, about equally long.
pub(crate) fn shares(layout: &Layout, keys: &OptimizerKeys, ranks: usize) -> Vec<Share> {
    let whole: Vec<Range<usize>> = match keys.matrices {
        Matrices::Muon => muon::matrices(layout, 0).map(|place| place.range).collect(),
        Matrices::AdamW => Vec::new(),
    };
    let inside = |at: usize| {
        let next = whole.partition_point(|range| range.end <= at);
        whole.get(next).is_some_and(|range| range.start < at)
    };
    let cuts: BTreeSet<usize> =
        pieces(layout).iter().map(|piece| piece.start).filter(|&start| !inside(start)).collect();
    let len = layout.len();
    let cut = |rank: usize| match rank * len / ranks {
        0 => 0,
        wanted => cuts.range(wanted..).next().copied().unwrap_or(len),
    };
    (0..ranks).map(|rank| cut(rank)..if rank + 1 == ranks { len } else { cut(rank + 1) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use std::path::Path;

    #[test]
    fn shares_follow_each_other_and_cut_neither_a_piece_nor_a_matrix_of_muons() {
        let text = "[data]\ncorpus = \"c\"\n[layer_dropout]\nshape = \"none\"\n[model]\nhidden_size = 128\n\
                    intermediate_size = 300\nnum_hidden_layers = 5\nnum_attention_heads = 2\nnum_key_value_heads = 1\n";
        let recipe = Recipe::from_toml(text, Path::new("r.toml")).unwrap();
        let layout = Layout::new(&recipe.config(3000, None).unwrap());
        for matrices in [Matrices::AdamW, Matrices::Muon] {
            let keys = OptimizerKeys { matrices, ..Default::default() };
            for ranks in [1, 2, 3, 4, 7, 64] {
                let shares = shares(&layout, &keys, ranks);
                assert_eq!(shares.len(), ranks);
                assert_eq!((shares[0].start, shares[ranks - 1].end), (0, layout.len()));
                assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
                let uncut = |range: &Range<usize>| {
                    shares.iter().all(|share| share.start <= range.start || range.end <= share.start)
                };
                assert!(pieces(&layout).iter().all(uncut));
                assert!(
                    matrices == Matrices::AdamW
                        || muon::matrices(&layout, 0).all(|place| uncut(&place.range))
                );
                let longest = shares.iter().map(ExactSizeIterator::len).max().unwrap();
                let fair = layout.len() / ranks + 3000 * 128;
                assert!(longest <= fair, "{longest} of {fair}");
            }
        }
    }
}
