//! The files that the program carries: one small model, trained on TinyStories, what was measured of it, and
//! stories of this repository to try it on.

/// A model folder's files.
#[derive(Clone, Copy, Debug)]
pub struct Bundled {
    /// The folder's name.
    pub name: &'static str,
    /// `config.json`.
    pub config: &'static str,
    /// `model.safetensors`, aligned for any number format.
    pub weights: &'static [u8],
    /// `tokenizer.json`.
    pub tokenizer: &'static str,
    /// `card.json`: what `offramp card` measured.
    pub card: &'static str,
}

/// Begins at a cache line.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

static WEIGHTS: &Aligned<[u8]> = &Aligned(*include_bytes!("../tinystories-24/model.safetensors"));

/// 24 layers that tell stories, and may be left after any of them.
pub static TINYSTORIES_24: Bundled = Bundled {
    name: "tinystories-24",
    config: include_str!("../tinystories-24/config.json"),
    weights: &WEIGHTS.0,
    tokenizer: include_str!("../tinystories-24/tokenizer.json"),
    card: include_str!("../tinystories-24/card.json"),
};

/// The stories written for this repository, from which no model that it carries has learnt.
pub fn stories() -> impl Iterator<Item = &'static str> {
    let files = [include_str!("../../stories/train.txt"), include_str!("../../stories/valid.txt")];
    files.into_iter().flat_map(|file| file.split("<|endoftext|>\n")).map(|story| story.trim_matches('\n'))
}
