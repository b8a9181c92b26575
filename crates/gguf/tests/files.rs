//! A file that is written is read again; one that is damaged is refused, whatever it says.

use offramp_gguf::{Error, Header, NewTensor, TensorType, Value, write};
use proptest::prelude::*;

fn tensor(name: &str, shape: &[usize], kind: TensorType) -> NewTensor {
    NewTensor { name: name.to_owned(), shape: shape.to_vec(), kind }
}

/// A small file with a key of each kind and two tensors.
fn file() -> Vec<u8> {
    let metadata = [
        ("general.architecture", Value::Text("llama".to_owned())),
        ("a.number", Value::Unsigned(7)),
        ("a.large", Value::Unsigned(1 << 40)),
        ("a.negative", Value::Signed(-3)),
        ("a.float", Value::Float(0.5)),
        ("a.double", Value::Float(0.1)),
        ("a.switch", Value::Bool(true)),
        ("a.list", Value::Texts(["one", "two", ""].map(str::to_owned).to_vec())),
        ("a.numbers", Value::Numbers(vec![1.0, -(2f64.powi(40))])),
        ("a.whole", Value::Numbers(vec![1.0, -3.0])),
        ("a.double.list", Value::Numbers(vec![0.1])),
        ("an.empty", Value::Texts(Vec::new())),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    let tensors = [tensor("first", &[2, 3], TensorType::F32), tensor("second", &[2, 32], TensorType::Q8_0)];
    let mut bytes = Vec::new();
    let mut placed = write(&mut bytes, &metadata, &tensors).expect("memory");
    let mut block = Vec::new();
    TensorType::F32.encode(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &mut block);
    placed.bytes(&block).and_then(|()| placed.end()).expect("memory");
    block.clear();
    TensorType::Q8_0.encode(&[0.25; 64], &mut block);
    placed.bytes(&block).and_then(|()| placed.end()).expect("memory");
    bytes
}

#[test]
fn a_file_comes_back() {
    let bytes = file();
    let header = Header::parse(&bytes).expect("a good file");
    assert_eq!(header.get("a.double"), Some(&Value::Float(0.1)));
    let numbers = |key: &str| header.get(key).and_then(Value::as_numbers).map(<[_]>::to_vec);
    assert_eq!(numbers("a.numbers"), Some(vec![1.0, -(2f64.powi(40))]));
    assert_eq!((numbers("a.whole"), numbers("a.double.list")), (Some(vec![1.0, -3.0]), Some(vec![0.1])));
    assert_eq!(header.get("a.list"), Some(&Value::Texts(["one", "two", ""].map(str::to_owned).to_vec())));
    assert_eq!(header.tensors[1].shape, [2, 32]);
    let mut values = [0.0; 6];
    TensorType::F32.decode(&bytes[header.tensors[0].bytes.clone()], &mut values);
    assert_eq!(values, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    assert!(header.tensors.iter().all(|tensor| tensor.bytes.start % 32 == 0));
}

#[test]
fn every_shorter_file_is_refused() {
    let bytes = file();
    // The last tensor is followed by padding.
    let end = Header::parse(&bytes).expect("a good file").tensors[1].bytes.end;
    for len in 0..end {
        assert!(Header::parse(&bytes[..len]).is_err(), "{len} of {end} bytes");
    }
}

#[test]
fn versions_and_formats_are_named() {
    let mut bytes = file();
    assert_eq!(Header::parse(b"GGML\x03\0\0\0").err(), Some(Error::Magic));
    bytes[4] = 1;
    assert_eq!(Header::parse(&bytes).err(), Some(Error::Version(1)));
    bytes[4..8].copy_from_slice(&[0, 0, 0, 3]);
    assert_eq!(Header::parse(&bytes).err(), Some(Error::BigEndian));
}

proptest! {
    #[test]
    fn a_damaged_file_is_refused_or_read(at in 0usize..600, byte: u8, len in 0usize..8) {
        let mut bytes = file();
        let at = at % bytes.len();
        let end = (at + len).min(bytes.len());
        bytes[at..end].fill(byte);
        if let Ok(header) = Header::parse(&bytes) {
            for tensor in header.tensors {
                let mut values = vec![0.0; tensor.shape.iter().product()];
                tensor.kind.decode(&bytes[tensor.bytes], &mut values);
            }
        }
    }

    #[test]
    fn any_bytes_are_refused_or_read(rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(rest);
        let _ = Header::parse(&bytes);
    }
}
