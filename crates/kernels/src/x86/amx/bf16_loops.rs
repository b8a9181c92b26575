//! The innermost loops of products in `bf16` tiles: assembly, and the tiles that hold sums.
#![allow(unsafe_code, reason = "tiles are reached through assembly alone")]

use super::tile::{LINE, SIDE};
use half::bf16;
use std::arch::asm;

/// Some steps of k, for 16 rows and few tokens.
pub(super) struct RowStream {
    pub(super) a: *const bf16,
    pub(super) stride: usize, // bytes from row to row
    pub(super) ahead: usize,  // bytes from what is multiplied to what is prefetched
    pub(super) b: *const bf16,
    pub(super) width: usize, // tokens
    pub(super) steps: usize,
}

/// Steps between what is multiplied and what is prefetched.
pub(super) const AHEAD: usize = 16;

impl RowStream {
    /// Adds the products of 16 rows and the tokens to the first tile that holds sums.
    ///
    /// # Safety
    /// Both factors must have `steps` tiles; the tiles must be configured.
    pub(super) unsafe fn multiply(&self) {
        if self.steps == 0 {
            return;
        }
        let Self { a, stride, ahead, b, width, steps } = *self;
        let p = a.cast::<u8>().wrapping_add(ahead);
        // SAFETY: the caller's promise. The compiler uses no tiles, so that sums stay in theirs from one
        // assembly block to the next.
        unsafe {
            asm!(
                "2:",
                "tileloadd tmm4, [{a0} + {sa}*1]",
                "tileloadd tmm6, [{b0} + {sb}*1]",
                "tdpbf16ps tmm0, tmm4, tmm6",
                "prefetcht0 [{p0}]",
                "prefetcht0 [{p0} + {sa}]",
                "prefetcht0 [{p0} + {sa}*2]",
                "prefetcht0 [{p0} + {s3}]",
                "prefetcht0 [{p4}]",
                "prefetcht0 [{p4} + {sa}]",
                "prefetcht0 [{p4} + {sa}*2]",
                "prefetcht0 [{p4} + {s3}]",
                "prefetcht0 [{p8}]",
                "prefetcht0 [{p8} + {sa}]",
                "prefetcht0 [{p8} + {sa}*2]",
                "prefetcht0 [{p8} + {s3}]",
                "prefetcht0 [{p12}]",
                "prefetcht0 [{p12} + {sa}]",
                "prefetcht0 [{p12} + {sa}*2]",
                "prefetcht0 [{p12} + {s3}]",
                "add {a0}, 64",
                "add {p0}, 64",
                "add {p4}, 64",
                "add {p8}, 64",
                "add {p12}, 64",
                "add {b0}, {b_step}",
                "dec {steps}",
                "jnz 2b",
                a0 = inout(reg) a => _,
                p0 = inout(reg) p => _,
                p4 = inout(reg) p.wrapping_add(4 * stride) => _,
                p8 = inout(reg) p.wrapping_add(8 * stride) => _,
                p12 = inout(reg) p.wrapping_add(12 * stride) => _,
                sa = in(reg) stride,
                s3 = in(reg) 3 * stride,
                b0 = inout(reg) b => _,
                sb = in(reg) 4 * width,
                b_step = in(reg) SIDE * 4 * width,
                steps = inout(reg) steps => _,
                out("tmm0") _, out("tmm4") _, out("tmm6") _,
                options(nostack, readonly),
            );
        }
    }
}

/// Some steps of k, for up to two groups of 16 rows and two groups of tokens.
pub(super) struct TileSteps {
    pub(super) a: *const bf16,
    pub(super) a_next: usize, // bytes from a group of rows to the next
    pub(super) b: *const bf16,
    pub(super) b_stride: usize, // bytes from a pair of k to the next
    pub(super) b_next: usize,   // bytes from a group of tokens to the next
    pub(super) steps: usize,
}

/// Defines a method of `TileSteps` that runs `$step` for every step of k.
macro_rules! steps {
    ($name:ident, $($step:literal),*) => {
        /// # Safety
        /// As [`TileSteps::multiply`].
        #[inline]
        unsafe fn $name(&self) {
            let Self { a, a_next, b, b_stride, b_next, steps } = *self;
            // SAFETY: the caller's promise. The compiler uses no tiles, so that sums stay in theirs from one
            // assembly block to the next.
            unsafe {
                asm!(
                    "2:",
                    $($step,)*
                    "add {a0}, {tile}",
                    "add {a1}, {tile}",
                    "add {b0}, {b_step}",
                    "add {b1}, {b_step}",
                    "dec {steps}",
                    "jnz 2b",
                    a0 = inout(reg) a => _,
                    a1 = inout(reg) a.cast::<u8>().wrapping_add(a_next) => _,
                    b0 = inout(reg) b => _,
                    b1 = inout(reg) b.cast::<u8>().wrapping_add(b_next) => _,
                    tile = const SIDE * LINE,
                    sa = in(reg) LINE,
                    sb = in(reg) b_stride,
                    b_step = in(reg) SIDE * b_stride,
                    steps = inout(reg) steps => _,
                    out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly),
                );
            }
        }
    };
}

impl TileSteps {
    /// Adds the products of `lines` groups of rows and `columns` groups of tokens, one or two of each, to the
    /// tiles that hold sums.
    ///
    /// # Safety
    /// Both factors must have `steps` tiles; the tiles must be configured.
    pub(super) unsafe fn multiply(&self, lines: usize, columns: usize) {
        if self.steps == 0 {
            return;
        }
        // SAFETY: the caller's promise.
        unsafe {
            match (lines, columns) {
                (1, 1) => self.one_by_one(),
                (1, _) => self.one_by_two(),
                (_, 1) => self.two_by_one(),
                _ => self.two_by_two(),
            }
        }
    }

    steps!(
        two_by_two,
        "tileloadd tmm4, [{a0} + {sa}*1]",
        "tileloadd tmm6, [{b0} + {sb}*1]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b1} + {sb}*1]",
        "tdpbf16ps tmm1, tmm4, tmm7",
        "tileloadd tmm5, [{a1} + {sa}*1]",
        "tdpbf16ps tmm2, tmm5, tmm6",
        "tdpbf16ps tmm3, tmm5, tmm7"
    );
    steps!(
        one_by_two,
        "tileloadd tmm4, [{a0} + {sa}*1]",
        "tileloadd tmm6, [{b0} + {sb}*1]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm7, [{b1} + {sb}*1]",
        "tdpbf16ps tmm1, tmm4, tmm7"
    );
    steps!(
        two_by_one,
        "tileloadd tmm6, [{b0} + {sb}*1]",
        "tileloadd tmm4, [{a0} + {sa}*1]",
        "tdpbf16ps tmm0, tmm4, tmm6",
        "tileloadd tmm5, [{a1} + {sa}*1]",
        "tdpbf16ps tmm2, tmm5, tmm6"
    );
    steps!(
        one_by_one,
        "tileloadd tmm6, [{b0} + {sb}*1]",
        "tileloadd tmm4, [{a0} + {sa}*1]",
        "tdpbf16ps tmm0, tmm4, tmm6"
    );
}

/// Four tiles of sums: `[2 groups of rows, 2 groups of tokens]` of `[16, width]`.
#[repr(align(64))]
pub(super) struct FourTiles(pub(super) [f32; 4 * SIDE * SIDE]);

impl FourTiles {
    /// Clears the tiles that hold sums.
    ///
    /// # Safety
    /// The tiles must be configured.
    pub(super) unsafe fn clear() {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem),
            );
        }
    }

    /// Writes 32 × 32 sums to rows `stride` floats apart.
    ///
    /// # Safety
    /// As [`FourTiles::clear`], of tiles of 16 × 16; `out` must hold them.
    pub(super) unsafe fn store(out: *mut f32, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tilestored [{top} + {stride}*1], tmm0",
                "tilestored [{top} + {stride}*1 + 64], tmm1",
                "tilestored [{low} + {stride}*1], tmm2",
                "tilestored [{low} + {stride}*1 + 64], tmm3",
                top = in(reg) out,
                low = in(reg) out.wrapping_add(SIDE * stride),
                stride = in(reg) 4 * stride,
                options(nostack),
            );
        }
    }

    /// The sums that the tiles hold.
    ///
    /// # Safety
    /// As [`FourTiles::clear`].
    pub(super) unsafe fn take(width: usize) -> Self {
        let mut sums = Self([0.0; 4 * SIDE * SIDE]);
        // SAFETY: the caller's promise.
        unsafe {
            asm!(
                "tilestored [{sums} + {sb}*1], tmm0",
                "tilestored [{sums} + {sb}*1 + 1024], tmm1",
                "tilestored [{sums} + {sb}*1 + 2048], tmm2",
                "tilestored [{sums} + {sb}*1 + 3072], tmm3",
                sums = in(reg) sums.0.as_mut_ptr(),
                sb = in(reg) 4 * width,
                options(nostack),
            );
        }
        sums
    }
}
