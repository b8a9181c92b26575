//! Which weights stay where they stand, and which are made.

use super::*;
use offramp_kernels::bf16;

#[test]
fn bf16_stays_as_it_stands_and_is_made_of_other_floats() {
    let config = config(false);
    for (dtype, padding, mapped) in
        [("BF16", 0, true), ("BF16", 2, true), ("BF16", 1, false), ("F32", 0, false), ("F16", 0, false)]
    {
        let folder = Folder::with(&[]);
        folder.write(WEIGHTS, &file(&model(&config, dtype), padding));
        let weights = folder.open(&config).unwrap();
        for spec in config.tensors() {
            let found = storage::<bf16>(&weights, &spec, Format::Bf16).unwrap();
            let expected: Vec<_> = values(&spec).into_iter().map(bf16::from_f32).collect();
            assert_eq!((found.as_slice(), found.is_mapped()), (&expected[..], mapped), "{dtype}, {padding}");
            let natural = if dtype == "BF16" { Format::Bf16 } else { Format::F32 };
            assert_eq!(weights.format(&spec).unwrap(), natural);
        }
    }
}
