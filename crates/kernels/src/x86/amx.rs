//! The table for processors with tiles (AMX): products of many `bf16` or int8 at once, the rest AVX-512's.
//!
//! A tile is a register of up to 16 rows of 64 bytes, and one instruction multiplies two of them. The
//! compiler has no stable types for tiles, so that all code that touches them is assembly.
#![allow(unsafe_code, reason = "tiles are reached through assembly alone")]

mod bf16_loops;
mod bf16_product;
mod bf16_tokens;
mod gemm_tile_pack;
mod gemm_tiles;
mod strip_tiles;
mod ternary_tiles;
mod tile;
mod transpose;

use crate::table::Table;
use std::arch::asm;
use std::arch::x86_64::__cpuid_count;

/// Handed out by `super::tables` alone, which asks the processor and the system first.
pub(super) static TABLE: Table = Table {
    name: "amx",
    operand_bf16: bf16_tokens::operand,
    operand_len: bf16_tokens::operand_len,
    product_bf16: bf16_product::product,
    product_strips: strip_tiles::product,
    product_ternary: ternary_tiles::product,
    gemm_bf16: &gemm_tiles::BF16,
    ..super::avx512::FUNCTIONS
};

/// Whether the processor has tiles with `bf16` and int8 products, and the system lets this process use them.
pub(super) fn available() -> bool {
    let has = |feature: u32| __cpuid_count(7, 0).edx >> feature & 1 == 1;
    const BF16: u32 = 22;
    const TILE: u32 = 24;
    const INT8: u32 = 25;
    [BF16, TILE, INT8].into_iter().all(has) && permitted()
}

/// Asks Linux for permission to use tiles. It is given to the process, for all of its threads.
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
