//! Quantizing and rotating one row, written so that compilers vectorize it for each table.

use super::Activations;

/// Quantizes a row. Returns its step and the sum of its codes.
#[inline(always)]
pub(crate) fn quantize_row<const FMA: bool>(
    activations: Activations,
    x: &[f32],
    codes: &mut [i8],
) -> (f32, i32) {
    let step = super::quantize(activations, x, codes);
    (step, codes.iter().map(|&code| i32::from(code)).sum())
}

/// Values of a group whose first four stages stay in registers.
const LANES: usize = 16;

/// As [`super::hadamard`], with the same bits: the first stages within vectors, the others two at a time.
///
/// # Panics
/// If the length is no power of two.
#[inline(always)]
pub(crate) fn hadamard<const FMA: bool>(row: &mut [f32]) {
    if row.len() < LANES {
        return super::hadamard(row);
    }
    assert!(row.len().is_power_of_two(), "a Hadamard rotation of {} values", row.len());
    for lanes in row.as_chunks_mut::<LANES>().0 {
        *lanes = stage::<8>(&stage::<4>(&stage::<2>(&stage::<1>(lanes))));
    }
    let mut half = LANES;
    while 2 * half < row.len() {
        for four in row.chunks_exact_mut(4 * half) {
            let (left, right) = four.split_at_mut(2 * half);
            let ((a, b), (c, d)) = (left.split_at_mut(half), right.split_at_mut(half));
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                let (first, second) = ([*a + *b, *c + *d], [*a - *b, *c - *d]);
                (*a, *c) = (first[0] + first[1], first[0] - first[1]);
                (*b, *d) = (second[0] + second[1], second[0] - second[1]);
            }
        }
        half *= 4;
    }
    if half < row.len() {
        let (left, right) = row.split_at_mut(half);
        left.iter_mut().zip(right).for_each(|(a, b)| (*a, *b) = (*a + *b, *a - *b));
    }
    let scale = (1.0 / (row.len() as f64).sqrt()) as f32;
    row.iter_mut().for_each(|value| *value *= scale);
}

/// Butterflies of values `HALF` apart.
#[inline(always)]
fn stage<const HALF: usize>(lanes: &[f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|i| lanes[i ^ HALF] + if i & HALF == 0 { lanes[i] } else { -lanes[i] })
}
