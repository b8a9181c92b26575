//! Ternary weights as Hugging Face's `bitnet` packs them.
//!
//! A byte holds four codes, each code + 1. They come from the four quarters of the rows, not from
//! neighbouring rows: row r of the tensor `[rows / 4, in_features]` holds, from the lowest bits on, the rows
//! r, r + rows / 4, r + 2 · rows / 4 and r + 3 · rows / 4. Beside it stands a `weight_scale` `[1]`; the
//! config says what it means.

use crate::error::Error;
use crate::tensor::TensorSpec;
use offramp_kernels::rayon::prelude::*;
use std::path::Path;

/// Codes in a byte.
const QUARTERS: usize = 4;

/// The tensor that holds the scale of a packed one.
pub(crate) fn scale(spec: &TensorSpec) -> TensorSpec {
    let name = spec.name.strip_suffix("weight").unwrap_or(&spec.name);
    TensorSpec::new(format!("{name}weight_scale"), &[1])
}

/// The shape of a packed matrix; none if the number of its rows is no multiple of 4.
pub(crate) fn packed_shape(spec: &TensorSpec) -> Option<[usize; 2]> {
    let [rows, in_features] = spec.shape[..] else { return None };
    rows.is_multiple_of(QUARTERS).then_some([rows / QUARTERS, in_features])
}

/// The error for a matrix without such a shape.
pub(super) fn not_in_quarters(path: &Path, spec: &TensorSpec) -> Error {
    let reason = format!("of shape {:?} cannot be packed: choose sizes that are multiples of 4", spec.shape);
    Error::Packed { path: path.to_owned(), tensor: spec.name.clone(), reason }
}

/// Packs codes −1, 0 and 1, `[rows, in_features]`; the number of rows is a multiple of 4.
pub(crate) fn pack(codes: &[i8]) -> Vec<u8> {
    let quarter = codes.len() / QUARTERS;
    let bits = |at: usize| (0..QUARTERS).map(move |i| ((codes[at + i * quarter] + 1) as u8) << (2 * i));
    (0..quarter).into_par_iter().map(|at| bits(at).fold(0, |byte, bits| byte | bits)).collect()
}

/// The codes of a packed matrix, or the index of the first that is invalid.
pub(super) fn unpack(packed: &[u8]) -> std::result::Result<Vec<i8>, usize> {
    let mut codes = vec![0i8; QUARTERS * packed.len()];
    let quarters = codes.chunks_exact_mut(packed.len().max(1)).enumerate();
    let fault = quarters.filter_map(|(quarter, codes)| {
        // No branch per code, so that compilers vectorize it.
        codes.iter_mut().zip(packed).for_each(|(code, byte)| *code = (byte >> (2 * quarter) & 3) as i8 - 1);
        let beyond = codes.iter().fold(false, |any, &code| any | (code > 1));
        beyond.then(|| quarter * packed.len() + codes.iter().position(|&code| code > 1).unwrap_or(0))
    });
    match fault.min() {
        None => Ok(codes),
        Some(index) => Err(index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_back() {
        for quarter in [1, 3, 70] {
            let codes: Vec<i8> = (0..4 * quarter).map(|at| ((at * 7 + at / 5) % 3) as i8 - 1).collect();
            assert_eq!(unpack(&pack(&codes)), Ok(codes));
        }
    }

    /// The example in the documentation of transformers' `unpack_weights`.
    #[test]
    fn it_is_transformers_packing() {
        let packed = [0b1010_0001, 0b0001_1000, 0b1001_0000, 0b0000_1010];
        let codes = [0, -1, -1, 1, -1, 1, -1, 1, 1, 0, 0, -1, 1, -1, 1, -1];
        assert_eq!(unpack(&packed), Ok(codes.to_vec()));
        assert_eq!(pack(&codes), packed);
        assert_eq!(unpack(&[0b01_10_11_01, 0b00_00_00_11]), Err(1), "row 0 of the second column");
        assert_eq!(unpack(&[]), Ok(Vec::new()));
    }
}
