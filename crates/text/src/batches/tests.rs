//! The same seed gives the same batches, in any order of calls. An epoch shows every window once.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

/// Token `i` of the stream is `i`, so a window's first token is its place.
fn counting(len: usize) -> TokenStream {
    TokenStream::from_tokens((0..len as u32).collect(), len).unwrap()
}

fn batch(batches: &mut Batches, index: u64) -> (Vec<u32>, Vec<u32>) {
    let tokens = batches.batch_size * batches.sequence_length;
    let (mut inputs, mut labels) = (vec![0; tokens], vec![0; tokens]);
    batches.fill(index, &mut inputs, &mut labels).unwrap();
    (inputs, labels)
}

proptest! {
    #[test]
    fn labels_follow_inputs_and_windows_lie_within(
        length in 1usize..20, more in 1usize..300, size in 1usize..6, seed in any::<u64>(), index in 0u64..1000,
    ) {
        let stream = counting(length + more);
        let mut batches = Batches::new(&stream, size, length, seed).unwrap();
        let (inputs, labels) = batch(&mut batches, index);
        for (row, labels) in inputs.chunks(length).zip(labels.chunks(length)) {
            for i in 0..length {
                prop_assert_eq!(row[i], row[0] + i as u32);
                prop_assert_eq!(labels[i], row[i] + 1);
            }
        }
    }

    #[test]
    fn knowing_the_index_is_enough_to_resume(seed in any::<u64>(), size in 1usize..5, from in 0u64..40) {
        let stream = counting(101);
        let mut straight = Batches::new(&stream, size, 7, seed).unwrap();
        let all: Vec<_> = (0..60).map(|i| batch(&mut straight, i)).collect();
        let mut resumed = Batches::new(&stream, size, 7, seed).unwrap();
        for i in from..60 {
            prop_assert_eq!(&batch(&mut resumed, i), &all[i as usize]);
        }
        prop_assert_eq!(&batch(&mut resumed, 0), &all[0]);
    }

    #[test]
    fn an_epoch_shows_every_window_once(seed in any::<u64>(), epoch in 0u64..50) {
        let (len, length) = (100, 6);
        let stream = counting(len);
        let mut batches = Batches::new(&stream, 1, length, seed).unwrap();
        let windows = u64::from(batches.windows);
        prop_assert_eq!(windows, 15); // ⌊(100 − 6) / 6⌋
        let starts: HashSet<u32> =
            (epoch * windows..(epoch + 1) * windows).map(|i| batch(&mut batches, i).0[0]).collect();
        prop_assert_eq!(starts.len() as u64, windows);
        let offset = starts.iter().min().unwrap();
        prop_assert!((*offset as usize) < length);
        prop_assert!(starts.iter().all(|s| ((s - offset) as usize).is_multiple_of(length)));
    }
}

#[test]
fn epochs_and_seeds_differ() {
    let stream = counting(1000);
    let order = |seed, epoch: u64| {
        let mut batches = Batches::new(&stream, 1, 10, seed).unwrap();
        let windows = u64::from(batches.windows);
        (0..windows).map(|i| batch(&mut batches, epoch * windows + i).0[0]).collect::<Vec<_>>()
    };
    assert_ne!(order(1, 0), order(1, 1));
    assert_ne!(order(1, 0), order(2, 0));
    assert_eq!(order(1, 3), order(1, 3));
}

/// Bit-for-bit resumption across versions rests on these numbers: they must never change.
#[test]
fn the_order_is_the_one_it_has_always_been() {
    let stream = counting(100);
    let mut batches = Batches::new(&stream, 8, 9, 43).unwrap();
    let starts: Vec<u32> = batch(&mut batches, 0).0.iter().step_by(9).copied().collect();
    assert_eq!(starts, FIRST_STARTS);
}

const FIRST_STARTS: [u32; 8] = [30, 75, 48, 57, 39, 21, 12, 84];

#[test]
fn offsets_and_places_are_uniform() {
    let stream = counting(64);
    let mut batches = Batches::new(&stream, 1, 8, 9).unwrap();
    let windows = u64::from(batches.windows);
    assert_eq!(windows, 7);
    let mut seen = [0u32; 64];
    let epochs = 4000;
    for epoch in 0..epochs {
        seen[batch(&mut batches, epoch * windows).0[0] as usize] += 1;
    }
    // 8 offsets × 7 windows = 56 equally likely starts of an epoch's first window: expect 71 each.
    assert!(seen[..56].iter().all(|&n| (35..=115).contains(&n)), "{seen:?}");
    assert!(seen[56..].iter().all(|&n| n == 0));
}

#[test]
fn a_stream_of_exactly_one_window_is_enough() {
    let stream = counting(9);
    let mut batches = Batches::new(&stream, 3, 8, 1).unwrap();
    let (inputs, labels) = batch(&mut batches, 5);
    assert_eq!(inputs, (0..8).cycle().take(24).collect::<Vec<u32>>());
    assert_eq!(labels, (1..9).cycle().take(24).collect::<Vec<u32>>());
    batch(&mut batches, u64::MAX);
}

#[test]
fn what_has_no_batch_says_so() {
    let stream = counting(8);
    assert!(matches!(Batches::new(&stream, 1, 8, 1), Err(Error::TooShort { len: 8, needed: 9 })));
    assert!(matches!(Batches::new(&stream, 1, usize::MAX, 1), Err(Error::TooShort { .. })));
    assert!(matches!(Batches::new(&stream, 0, 4, 1), Err(Error::Option { option: "batch_size", .. })));
    assert!(matches!(Batches::new(&stream, 1, 0, 1), Err(Error::Option { option: "sequence_length", .. })));
    let empty = TokenStream::from_tokens(vec![], 1).unwrap();
    assert!(matches!(Batches::new(&empty, 1, 1, 1), Err(Error::TooShort { .. })));
}

/// Stories of counting tokens, each of another length, with the token 0 between two.
fn stories(lengths: &[usize]) -> (TokenStream, Vec<Vec<u32>>) {
    let mut next = 1u32;
    let mut count = |&length: &usize| {
        let story: Vec<u32> = (next..next + length as u32).collect();
        next += length as u32;
        story
    };
    let stories: Vec<_> = lengths.iter().map(&mut count).collect();
    let tokens = stories.join(&0);
    (TokenStream::from_tokens(tokens, next as usize).unwrap(), stories)
}

proptest! {
    /// An epoch is a stream of the same stories, each whole and once, in another order than the last epoch's.
    #[test]
    fn an_epoch_may_have_its_stories_in_an_order_of_its_own(
        lengths in proptest::collection::vec(0usize..40, 8..60), seed in any::<u64>(), epoch in 0u64..20,
    ) {
        let (stream, mut expected) = stories(&lengths);
        prop_assume!(stream.len() > 8);
        let mut order = Stories::find(&stream, 0).unwrap();
        let mut whole = |epoch| {
            let mut tokens = vec![0; stream.len() as usize];
            order.shuffle(seed, epoch);
            order.read(&stream, 0, &mut tokens).unwrap();
            for start in [1, 5, stream.len() / 2] {
                let mut part = vec![0; 3];
                order.read(&stream, start, &mut part).unwrap();
                assert_eq!(part, tokens[start as usize..start as usize + 3]);
            }
            tokens
        };
        let (tokens, next) = (whole(epoch), whole(epoch + 1));
        let mut found: Vec<_> = tokens.split(|&token| token == 0).map(<[u32]>::to_vec).collect();
        prop_assert!(found != expected || tokens != next, "an order stays once in 8! at the most");
        found.sort();
        expected.sort();
        prop_assert_eq!(found, expected);
    }

    #[test]
    fn windows_of_shuffled_stories_resume_by_their_index(seed in any::<u64>(), from in 0u64..30) {
        let (stream, _) = stories(&[7, 11, 3, 19, 2, 5]);
        let new = || Batches::new(&stream, 2, 6, seed).unwrap().shuffling_stories(0).unwrap();
        let mut straight = new();
        let all: Vec<_> = (0..30).map(|index| batch(&mut straight, index)).collect();
        let mut resumed = new();
        for index in from..30 {
            let (inputs, labels) = batch(&mut resumed, index);
            for (row, labels) in inputs.chunks(6).zip(labels.chunks(6)) {
                prop_assert_eq!(&row[1..], &labels[..5]);
            }
            prop_assert_eq!(&(inputs, labels), &all[index as usize]);
        }
    }
}

/// As the order of windows, this must never change.
#[test]
fn the_order_of_stories_is_the_one_it_has_always_been() {
    let (stream, _) = stories(&[1; 12]);
    let mut batches = Batches::new(&stream, 1, 22, 43).unwrap().shuffling_stories(0).unwrap();
    let first: Vec<u32> = batch(&mut batches, 0).0.into_iter().filter(|&token| token > 0).collect();
    assert_eq!(first, FIRST_STORIES);
}

const FIRST_STORIES: [u32; 11] = [4, 11, 3, 10, 5, 12, 2, 9, 6, 1, 8];
