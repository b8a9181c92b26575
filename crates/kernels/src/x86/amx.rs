//! The table for processors with tiles (AMX): products of many `bf16` or int8 at once, the rest AVX-512's.
//!
//! A tile is a register of up to 16 rows of 64 bytes, and one instruction multiplies two of them. The compiler
//! knows no types for them yet, so that what touches them is written in assembly, and nothing else does.
#![allow(unsafe_code, reason = "tiles are reached through assembly alone")]

mod gemm;
mod operand;
mod pack;
mod rows;
mod strips;
mod ternary;
mod transpose;
mod way;

use crate::table::Table;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

/// Handed out by `super::tables` alone, which asks the processor and the system first.
pub(super) static TABLE: Table = Table {
    name: "amx",
    operand_bf16: operand::operand,
    operand_len: operand::operand_len,
    product_bf16: rows::product,
    product_strips: strips::product,
    product_ternary: ternary::product,
    gemm_bf16: &gemm::BF16,
    ..super::avx512::FUNCTIONS
};

/// Rows of a tile, and columns of 32 bits.
const SIDE: usize = 16;
/// Bytes of a tile's row.
const LINE: usize = 64;

/// Whether the processor has tiles with `bf16` and int8 products, and the system lets this process use them.
pub(super) fn available() -> bool {
    let has = |feature: u32| __cpuid_count(7, 0).edx >> feature & 1 == 1;
    const BF16: u32 = 22;
    const TILE: u32 = 24;
    const INT8: u32 = 25;
    [BF16, TILE, INT8].into_iter().all(has) && permitted()
}

/// Asks Linux for the tiles' state, which it gives a process when asked; once for all of its threads.
#[cfg(target_os = "linux")]
fn permitted() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILE_DATA: u64 = 18;
    let answer: i64;
    // SAFETY: a system call that reads two numbers and touches no memory.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => answer,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILE_DATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    answer == 0
}

#[cfg(not(target_os = "linux"))]
fn permitted() -> bool {
    false
}

/// The shapes of this thread's tiles while it lives: 0 to 3 hold sums, 4 and 5 left factors, 6 and 7 right ones.
struct Shapes(());

/// Rows, and bytes of a row.
type Shape = (usize, usize);

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct Configuration {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// # Safety
    /// The processor must have tiles, and the system have given them.
    unsafe fn set(sums: Shape, left: Shape, right: Shape) -> Self {
        let mut configuration =
            Configuration { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        for (tile, (rows, bytes)) in
            [sums, sums, sums, sums, left, left, right, right].into_iter().enumerate()
        {
            assert!(
                (1..=SIDE).contains(&rows) && (1..=LINE).contains(&bytes),
                "a tile of {rows} × {bytes} bytes"
            );
            (configuration.rows[tile], configuration.bytes[tile]) = (rows as u8, bytes as u16);
        }
        // SAFETY: the caller's promise; the configuration is one of palette 1.
        unsafe {
            asm!(
                "ldtilecfg [{}]",
                in(reg) &raw const configuration,
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, readonly),
            );
        }
        Self(())
    }
}

impl Drop for Shapes {
    /// Tiles in use cost at every switch between threads.
    fn drop(&mut self) {
        // SAFETY: whoever made this has tiles.
        unsafe {
            asm!(
                "tilerelease",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack, nomem),
            );
        }
    }
}
