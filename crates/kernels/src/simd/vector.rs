//! What kernels ask of an instruction set.

#![allow(unsafe_code, reason = "what needs instructions is unsafe to call")]

use half::{bf16, f16};

/// The vectors of one instruction set.
///
/// The implementor is an empty type that names the instruction set; its registers are the associated types.
/// Kernels are generic over it and `#[inline(always)]`, so that they are compiled with the features of the
/// function that calls them.
///
/// # Safety
/// Every function, here and in [`Dot`], runs instructions that the processor may lack. The caller must be:
///
/// - a function with `#[target_feature]` for all features that the implementor lists, which a table calls
///   only after the processor was asked for them; or
/// - an `#[inline(always)]` function that makes the same demand of its own caller.
///
/// Pointers must be valid for what is read or written: `LANES` values, unless a function says otherwise. They
/// need not be aligned. Nothing else is asked, and no function reads or writes anything else.
#[allow(clippy::missing_safety_doc, reason = "the trait's section holds for all of them")]
pub(crate) trait Simd: Copy {
    /// `LANES` floats.
    type F32: Copy;
    /// `LANES` whole numbers.
    type I32: Copy;
    /// `2 · LANES` values in `bf16`.
    type Bf16: Copy;

    /// Values of a vector.
    const LANES: usize;
    /// Tokens of a row-major tile: as many as the registers hold beside [`ROWS`] rows.
    const TILE_TOKENS: usize;
    /// As [`Self::TILE_TOKENS`], of factors in `bf16` that are widened in the tile, which takes registers.
    const WIDENED_TOKENS: usize;

    unsafe fn splat(x: f32) -> Self::F32;
    unsafe fn load(from: *const f32) -> Self::F32;
    /// The first `count` < `LANES` values; the other lanes are zero and not read.
    unsafe fn load_some(from: *const f32, count: usize) -> Self::F32;
    unsafe fn store(to: *mut f32, x: Self::F32);
    unsafe fn mul(a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a · b + c`, rounded once.
    unsafe fn mul_add(a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// The sum of all lanes, in a fixed tree: lanes `i` and `i + LANES / 2` first, and so on.
    unsafe fn total(x: Self::F32) -> f32;
    /// The sums of four rows, each as [`total`](Self::total) makes it.
    unsafe fn totals(rows: [Self::F32; ROWS]) -> [f32; ROWS];

    unsafe fn splat_i32(x: i32) -> Self::I32;
    unsafe fn add_i32(a: Self::I32, b: Self::I32) -> Self::I32;
    /// The nearest floats.
    unsafe fn to_f32(x: Self::I32) -> Self::F32;

    /// `2 · LANES` values.
    unsafe fn load_bf16(from: *const bf16) -> Self::Bf16;
    /// The first `count` < `2 · LANES` values; the others are zero and not read.
    unsafe fn load_some_bf16(from: *const bf16, count: usize) -> Self::Bf16;
    /// The values at even places, widened.
    unsafe fn even(x: Self::Bf16) -> Self::F32;
    /// The values at odd places, widened.
    unsafe fn odd(x: Self::Bf16) -> Self::F32;
    /// `LANES` values, widened.
    unsafe fn load_widened(from: *const bf16) -> Self::F32;
    /// `LANES` values, widened exactly.
    unsafe fn load_halves(from: *const f16) -> Self::F32;

    /// Prefetches a line into the first-level cache. The address need not exist.
    unsafe fn prefetch_l1(address: *const u8);
    /// Prefetches a line into the second-level cache. The address need not exist.
    unsafe fn prefetch_l2(address: *const u8);
}

/// Rows of a row-major tile.
pub(crate) const ROWS: usize = 4;

/// Products of four codes of a row by four codes of a token, added up in the row's lane.
///
/// Stored codes have no sign. An instruction set may add up products of small codes in fewer bits than 32 for
/// a while: it `open`s such a sum, and `close`s it after at most [`FOUR_BIT_STEPS`] or [`TWO_BIT_STEPS`]
/// additions.
///
/// # Safety
/// As [`Simd`], with the features that the implementor lists for this trait.
#[allow(clippy::missing_safety_doc, reason = "the trait's section holds for all of them")]
pub(crate) trait Dot: Simd {
    /// `LANES` times four stored codes, one to a byte or several.
    type Stored: Copy;
    /// `LANES` times the four codes of a token, with their signs.
    type Token: Copy;
    /// Codes of eight bits, ready to be multiplied.
    type Bytes: Copy;
    /// Sums of products of small codes.
    type Small: Copy;

    /// Tokens of a tile of 8-bit or 4-bit codes.
    const STRIP_TOKENS: usize;
    /// Tokens of a tile of ternary codes.
    const TERNARY_TOKENS: usize;
    /// Vectors of a strip's rows that are multiplied together where each takes more than [`FEW_REGISTERS`];
    /// else all are.
    const VECTORS_AT_ONCE: usize;
    /// Whether `Small` is as wide as `I32`, so that such a sum may stay open from block to block.
    const SMALL_IS_WIDE: bool;
    /// Bytes by which ternary codes are prefetched ahead.
    const TERNARY_AHEAD: usize;

    /// `4 · LANES` bytes.
    unsafe fn load_stored(from: *const u8) -> Self::Stored;
    /// Four codes of a token, repeated in every lane.
    unsafe fn repeat(from: *const i8) -> Self::Token;

    /// The bits of each byte from `shift` on that `mask` keeps.
    unsafe fn bits(stored: Self::Stored, shift: usize, mask: u8) -> Self::Stored;
    unsafe fn open(sum: Self::I32) -> Self::Small;
    /// Adds products of codes of two or four bits.
    unsafe fn dot_small(sum: Self::Small, codes: Self::Stored, token: Self::Token) -> Self::Small;
    /// `sum`, which was given to `open`, with the products.
    unsafe fn close(sum: Self::I32, small: Self::Small) -> Self::I32;

    unsafe fn bytes(stored: Self::Stored) -> Self::Bytes;
    /// Where a sum of products of bytes begins, if −128 · Σ token is `offset`.
    unsafe fn start_bytes(offset: i32) -> Self::I32;
    /// Adds products of codes of eight bits, that stand for `stored − 128`.
    unsafe fn dot_bytes(sum: Self::I32, codes: Self::Bytes, token: Self::Token) -> Self::I32;
}

/// Additions between [`Dot::open`] and [`Dot::close`], of products of codes of four bits.
pub(crate) const FOUR_BIT_STEPS: usize = 8;
/// Additions between [`Dot::open`] and [`Dot::close`], of products of codes of two bits.
pub(crate) const TWO_BIT_STEPS: usize = 16;

/// Registers of a vector of rows, for its codes and its sums, up to which a whole strip is multiplied
/// together.
pub(crate) const FEW_REGISTERS: usize = 3;
