//! Blocks of every format are the floats that PyPI's `gguf` decodes, and blocks that are written are its own.

use offramp_gguf::{Header, TensorInfo, TensorType, Value};
use std::path::Path;

fn fixture() -> (Vec<u8>, Header) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/gguf/blocks.gguf");
    let bytes = std::fs::read(path).expect("the fixture");
    let header = Header::parse(&bytes).expect("a GGUF file");
    (bytes, header)
}

fn find<'a>(header: &'a Header, name: &str) -> &'a TensorInfo {
    header.tensors.iter().find(|tensor| tensor.name == name).expect("a tensor of the fixture")
}

fn floats(file: &[u8], tensor: &TensorInfo) -> Vec<f32> {
    let mut out = vec![0.0; tensor.shape.iter().product()];
    tensor.kind.decode(&file[tensor.bytes.clone()], &mut out);
    out
}

#[test]
fn every_format_is_decoded_as_ggufs_python_does() {
    let (file, header) = fixture();
    for kind in TensorType::ALL {
        let stored = find(&header, &format!("{}.stored", kind.name()));
        assert_eq!((stored.kind, &stored.shape[..]), (kind, &[2, 512][..]));
        let expected = floats(&file, find(&header, &format!("{}.expected", kind.name())));
        for (at, (found, expected)) in floats(&file, stored).iter().zip(&expected).enumerate() {
            // −0 and 0 are one number: NumPy multiplies whole numbers, whose zero has no sign.
            let same = found.to_bits() == expected.to_bits() || (*found == 0.0 && *expected == 0.0);
            assert!(same, "{} at {at}: {found:e}, not {expected:e}", kind.name());
        }
    }
}

#[test]
fn codes_times_their_scale_are_the_values() {
    let (file, header) = fixture();
    let kinds: Vec<_> = TensorType::ALL.into_iter().filter(|kind| kind.code_bits().is_some()).collect();
    assert_eq!(kinds.len(), 5);
    for kind in kinds {
        let stored = find(&header, &format!("{}.stored", kind.name()));
        let values = floats(&file, stored);
        let (mut codes, mut scales) = (vec![0; values.len()], vec![0; values.len() / kind.block()]);
        kind.codes(&file[stored.bytes.clone()], &mut codes, &mut scales);
        for (at, (&code, value)) in codes.iter().zip(&values).enumerate() {
            let mut scale = [0.0];
            TensorType::F16.decode(&scales[at / kind.block()].to_le_bytes(), &mut scale);
            assert_eq!((f32::from(code) * scale[0]).to_bits(), value.to_bits(), "{} at {at}", kind.name());
        }
    }
}

#[test]
fn what_is_written_is_what_ggufs_python_writes() {
    let (file, header) = fixture();
    let values = floats(&file, find(&header, "values"));
    for kind in [TensorType::F16, TensorType::BF16, TensorType::Q8_0, TensorType::Q4_0, TensorType::TQ2_0] {
        let expected = find(&header, &format!("{}.encoded", kind.name()));
        let mut found = Vec::new();
        kind.encode(&values, &mut found);
        assert!(found == file[expected.bytes.clone()], "{}", kind.name());
    }
}

#[test]
fn every_kind_of_value_is_read() {
    let (_, header) = fixture();
    for (key, value) in [
        ("u8", Value::Unsigned(250)),
        ("i8", Value::Signed(-5)),
        ("u64", Value::Unsigned(1 << 60)),
        ("i64", Value::Signed(-(1 << 60))),
        ("f64", Value::Float(0.1)),
        ("bool", Value::Bool(true)),
        ("text", Value::Text("naïve 🙂".to_owned())),
        ("list", Value::Numbers(vec![1.5, -2.5])),
    ] {
        assert_eq!(header.get(&format!("kinds.{key}")), Some(&value));
    }
}
