//! Training allocates its buffers once: after the first step nothing of 64 KiB or more, and no more than
//! before.
#![allow(unsafe_code, reason = "a counting allocator in front of the system's")]

use offramp_tests::corpus::{Corpus, small_recipe};
use offramp_train::{Event, Job, Recipe, run};
use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering::Relaxed};

/// What counts as large.
const LARGE: usize = 64 << 10;

/// Bytes allocated and not freed, and allocations of [`LARGE`] bytes or more.
static LIVE: AtomicIsize = AtomicIsize::new(0);
static LARGE_ONES: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, -(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, size as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count(size: usize, change: isize) {
    LIVE.fetch_add(change, Relaxed);
    if size >= LARGE {
        LARGE_ONES.fetch_add(1, Relaxed);
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Of a model whose activations change their bits on the way.
const LOW_BIT: &str = "[layer_dropout]\nnormalize = \"none\"\np_max = 0.8";

/// Both precisions, both optimizers, and everything that differs from step to step: layer dropout, exits that
/// take turns, positions that are drawn.
#[test]
fn after_the_first_step_nothing_large_is_allocated() {
    // The counter sees itself: a corpus and a model come first, with buffers that are large.
    let before = LARGE_ONES.load(Relaxed);
    let corpus = Corpus::new();
    for (matrices, keys) in [
        ("adamw", "[layer_dropout]\nnormalize = \"none\"\np_max = 0.8\n[early_exit]\ncurriculum = \"all\""),
        ("muon", "[early_exit]\ncurriculum = \"rotational\"\nperiod = 3"),
        ("adamw", "[early_exit]\ncurriculum = \"sampled\"\nsample_fraction = 0.3"),
        ("adamw", LOW_BIT),
    ] {
        for precision in ["f32", "bf16"] {
            let text = small_recipe(precision, 12, keys).text().to_owned();
            let text = text.replace("[optimizer]", &format!("[optimizer]\nmatrices = \"{matrices}\""));
            let text = match keys == LOW_BIT {
                true => text.replace("[model]", "[model]\nbit_linear = \"bitskip-v2\""),
                false => text,
            };
            let recipe = Recipe::from_toml(&text, Path::new("small.toml")).expect("a recipe");
            let stop = AtomicBool::new(false);
            let folder = corpus.path(&format!("run-{}", LARGE_ONES.load(Relaxed)));
            let job = Job {
                recipe: &recipe,
                corpus: corpus.path("corpus"),
                folder,
                resume: false,
                best: false,
                stop: &stop,
            };
            let mut seen = Vec::with_capacity(64);
            run(&job, &mut |event| {
                if let Event::Step { .. } = event {
                    seen.push((LARGE_ONES.load(Relaxed), LIVE.load(Relaxed)));
                }
            })
            .expect("a run");
            let (large, live) = seen[0];
            assert!(large > before + 10, "buffers of this model are large: {large} allocations");
            for (step, &(now, live_now)) in seen.iter().enumerate() {
                assert_eq!(now, large, "{precision}, {keys}: step {} allocated 64 KiB or more", step + 1);
                let more = live_now - live;
                assert!(
                    more < LARGE as isize,
                    "{precision}, {keys}: {more} bytes more after step {}",
                    step + 1
                );
            }
        }
    }
}
