//! The part of the weights that each rank moves (ZeRO stage 1, Rajbhandari et al. 2020): it alone has their
//! moments. A matrix that Muon moves is whole on one rank, and a piece of the norm is summed by one rank.
//!
//! The weights are cut into buckets, each of which is exchanged as soon as its gradients are there (Li et al.
//! 2020, "PyTorch Distributed", section 3.2). Every rank has a share of every bucket, so that all links carry
//! something at any time.

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

/// Values that are exchanged together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket {
    /// Where they stand.
    pub(crate) range: Range<usize>,
    /// What of them each rank moves.
    pub(crate) shares: Vec<Share>,
}

impl Bucket {
    /// The shares of the values of `range`, counted from its first.
    pub(crate) fn within(&self, range: &Range<usize>) -> Vec<Share> {
        let inside = |at: usize| at.clamp(range.start, range.end) - range.start;
        self.shares.iter().map(|share| inside(share.start)..inside(share.end)).collect()
    }
}

/// The buckets of a layout, which follow each other, with a share for each of `ranks`. Layers are joined
/// until a bucket has at least `len` values. No tensor lies in two.
pub(crate) fn buckets(layout: &Layout, keys: &OptimizerKeys, ranks: usize, len: usize) -> Vec<Bucket> {
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
    let shared = |(index, range): (usize, Range<usize>)| {
        let cut = |place: usize| match place * range.len() / ranks {
            0 => range.start,
            wanted => cuts.range(range.start + wanted..range.end).next().copied().unwrap_or(range.end),
        };
        let end = |place: usize| if place + 1 == ranks { range.end } else { cut(place + 1) };
        // Each bucket begins with another rank: where matrices are whole, the last places may have less.
        let share = |rank: usize| {
            let place = (rank + index) % ranks;
            cut(place)..end(place)
        };
        Bucket { shares: (0..ranks).map(share).collect(), range: range.clone() }
    };
    joined(layout, len).into_iter().enumerate().map(shared).collect()
}

/// The embedding, layers joined from the last one down, and what stands after them: the parts of a gradient
/// that a backward leaves one by one.
fn joined(layout: &Layout, len: usize) -> Vec<Range<usize>> {
    let mut layers: Vec<Range<usize>> = Vec::new();
    for layer in (0..layout.layers()).rev().map(|index| layout.layer(index)) {
        match layers.last_mut() {
            Some(part) if part.len() < len => part.start = layer.start,
            _ => layers.push(layer),
        }
    }
    let after = layout.all_layers().end..layout.len();
    let parts = [layout.embed_tokens()].into_iter().chain(layers.into_iter().rev());
    parts.chain([after]).collect()
}

/// The values that one rank moves, and their places in a buffer that has nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Own {
    ranges: Vec<Range<usize>>,
    starts: Vec<usize>,
    len: usize,
}

impl Own {
    /// What one rank has of all buckets.
    pub(crate) fn of(buckets: &[Bucket], rank: usize) -> Self {
        let mut own = Self::default();
        for share in
            buckets.iter().map(|bucket| bucket.shares[rank].clone()).filter(|share| !share.is_empty())
        {
            own.starts.push(own.len);
            own.len += share.len();
            own.ranges.push(share);
        }
        own
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Whether it has the value at this place.
    pub(super) fn contains(&self, at: usize) -> bool {
        let next = self.ranges.partition_point(|range| range.end <= at);
        self.ranges.get(next).is_some_and(|range| range.start <= at)
    }

    /// What it has of a range that lies in one bucket: where it stands, and its place in the buffer of the
    /// own values.
    pub(crate) fn within(&self, range: &Range<usize>) -> Option<Held> {
        let next = self.ranges.partition_point(|own| own.end <= range.start);
        let own = self.ranges.get(next).filter(|own| own.start < range.end)?;
        let values = own.start.max(range.start)..own.end.min(range.end);
        Some(Held { place: self.starts[next] + values.start - own.start, values })
    }
}

/// Values that a rank moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Where they stand among all.
    pub(crate) values: Range<usize>,
    /// Where they begin among the rank's own.
    pub(crate) place: usize,
}

impl Held {
    /// Their places among the rank's own values.
    pub(crate) fn places(&self) -> Range<usize> {
        self.place..self.place + self.values.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::Recipe;
    use std::path::Path;

    fn layout() -> Layout {
        let text = "[data]\ncorpus = \"c\"\n[layer_dropout]\nshape = \"none\"\n[model]\nhidden_size = 128\n\
                    intermediate_size = 300\nnum_hidden_layers = 5\nnum_attention_heads = 2\nnum_key_value_heads = 1\n";
        let recipe = Recipe::from_toml(text, Path::new("r.toml")).unwrap();
        Layout::new(&recipe.config(3000, None).unwrap())
    }

    #[test]
    fn shares_follow_each_other_and_cut_neither_a_piece_nor_a_matrix_of_muons() {
        let layout = layout();
        for matrices in [Matrices::AdamW, Matrices::Muon] {
            let keys = OptimizerKeys { matrices, ..Default::default() };
            for (ranks, len) in [(1, 1), (2, 1), (3, 400_000), (4, 1), (7, 1), (64, usize::MAX)] {
                let buckets = buckets(&layout, &keys, ranks, len);
                let mut parts: Vec<Share> = buckets.iter().flat_map(|bucket| bucket.shares.clone()).collect();
                parts.retain(|share| !share.is_empty());
                parts.sort_by_key(|share| share.start);
                assert_eq!((parts[0].start, parts[parts.len() - 1].end), (0, layout.len()));
                assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
                let uncut = |range: &Range<usize>| {
                    parts.iter().all(|share| share.start <= range.start || range.end <= share.start)
                };
                assert!(pieces(&layout).iter().all(uncut));
                assert!(
                    matrices == Matrices::AdamW
                        || muon::matrices(&layout, 0).all(|place| uncut(&place.range))
                );
                let longest = (0..ranks).map(|rank| Own::of(&buckets, rank).len()).max().unwrap();
                let fair = layout.len() / ranks + 3000 * 128;
                assert!(longest <= fair, "{longest} of {fair}");
            }
        }
    }

    #[test]
    fn layers_are_joined_until_a_bucket_is_long_enough() {
        let (layout, keys) = (layout(), OptimizerKeys::default());
        let ranges = |len: usize| -> Vec<_> {
            buckets(&layout, &keys, 2, len).into_iter().map(|bucket| bucket.range).collect()
        };
        let layer = |index: usize| layout.layer(index);
        let (first, last) = (layout.embed_tokens(), layout.norm().start..layout.len());
        let two = layer(0).len() + 1;
        assert_eq!(
            ranges(two),
            [
                first.clone(),
                layer(0),
                layer(1).start..layer(2).end,
                layer(3).start..layer(4).end,
                last.clone()
            ]
        );
        assert_eq!(ranges(usize::MAX), [first, layout.all_layers(), last]);
        assert_eq!(ranges(0).len(), 7);
    }

    #[test]
    fn every_value_of_a_tensor_has_a_place_on_one_rank() {
        let layout = layout();
        let buckets = buckets(&layout, &OptimizerKeys::default(), 3, 1);
        let mut places = [0; 3];
        for (_, range) in layout.tensors() {
            let mut held = 0;
            for (rank, next) in places.iter_mut().enumerate() {
                let own = Own::of(&buckets, rank);
                let Some(found) = own.within(&range) else { continue };
                assert!(own.contains(found.values.start) && own.contains(found.values.end - 1));
                assert_eq!(found.place, *next, "one after another");
                *next = found.places().end;
                held += found.values.len();
            }
            assert_eq!(held, range.len());
        }
        let lens: Vec<_> = (0..3).map(|rank| Own::of(&buckets, rank).len()).collect();
        assert_eq!(places.to_vec(), lens);
    }
}
