//! Tiles: their size, and how a thread configures them.
#![allow(unsafe_code, reason = "tiles are reached through assembly alone")]

use std::arch::asm;

/// Rows of a tile, and columns of 32 bits.
pub(super) const SIDE: usize = 16;
/// Rows and columns of two tiles: each tile of a factor is used twice.
pub(super) const PAIR: usize = 2 * SIDE;
/// Bytes of a tile's row.
pub(super) const LINE: usize = 64;

/// The configuration of this thread's tiles, for as long as the value lives: tiles 0 to 3 hold sums, 4 and 5
/// left factors, 6 and 7 right ones.
pub(super) struct TileConfig(());

/// The shape of a tile.
#[derive(Clone, Copy)]
pub(super) struct TileShape {
    pub(super) rows: usize,
    /// Bytes of a row.
    pub(super) bytes: usize,
}

impl TileShape {
    /// 16 rows of so many bytes.
    pub(super) fn tall(bytes: usize) -> Self {
        Self { rows: SIDE, bytes }
    }
}

/// A tile of sums, stored: a value for each of 16 tokens and rows.
#[repr(align(64))]
pub(super) struct TileSums(pub(super) [i32; SIDE * SIDE]);

/// What `ldtilecfg` reads.
#[repr(C, align(64))]
struct TileConfigData {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    bytes: [u16; 16],
    rows: [u8; 16],
}

impl TileConfig {
    /// # Safety
    /// The processor must have tiles, and the system must let this process use them.
    pub(super) unsafe fn set(sums: TileShape, left: TileShape, right: TileShape) -> Self {
        let mut configuration =
            TileConfigData { palette: 1, start_row: 0, reserved: [0; 14], bytes: [0; 16], rows: [0; 16] };
        let tiles = [sums, sums, sums, sums, left, left, right, right];
        for (tile, TileShape { rows, bytes }) in tiles.into_iter().enumerate() {
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

impl Drop for TileConfig {
    /// Releases the tiles, which would otherwise be saved at every switch between threads.
    fn drop(&mut self) {
        // SAFETY: `set` was called, so that there are tiles.
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
