//! The fields of a parquet file's footer, as `parquet.thrift` in the Apache Parquet format's repository
//! defines them.
//!
//! The `parquet` crate reads a known field with the type that the field should have, not with the type that
//! the file states. Where the two differ, the crate can read a list's length at a place where there is none,
//! and allocate gigabytes for a file of a few hundred bytes.

use super::super::thrift::FieldType::{Binary, Bool, Double, I8, I16, I32, I64, List, Struct};
use super::super::thrift::{FieldType, KnownFields, walk};

/// The deepest nesting of groups in a schema. The crate recurses into them on the stack.
const MAX_DEPTH: usize = 100;

/// Checks what the crate does not: that every field has its type, and that the schema is a tree with as many
/// elements as it says and a bounded depth.
///
/// # Errors
/// What is wrong.
pub(super) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let mut schema = Schema { children: 0, open: Vec::new(), promised: 0, deepest: 0 };
    walk(bytes, FILE_METADATA, &mut |place, value| schema.visit(place, value))
        .map_err(|_| "its footer is cut short or garbled")?;
    match schema {
        Schema { promised, .. } if promised > bytes.len() as u64 => {
            Err("its schema promises more columns than it has")
        }
        Schema { deepest, .. } if deepest > MAX_DEPTH => Err("its schema is nested too deep"),
        _ => Ok(()),
    }
}

/// The schema. Its elements come one by one, each group before its children.
struct Schema {
    /// `num_children` of the current element.
    children: i64,
    /// Children still to come of each open group, the outermost first.
    open: Vec<u64>,
    /// The sum of all groups' children.
    promised: u64,
    /// The deepest nesting of groups.
    deepest: usize,
}

impl Schema {
    fn visit(&mut self, place: (i64, i64), value: i64) {
        match place {
            (2, 5) => self.children = value,
            (2, 0) => self.end(),
            _ => {}
        }
    }

    fn end(&mut self) {
        // The crate reads a negative number as a large one.
        let children = std::mem::take(&mut self.children) as u64;
        if let Some(left) = self.open.last_mut() {
            *left -= 1;
        }
        self.promised = self.promised.saturating_add(children);
        if children > 0 {
            self.open.push(children);
            self.deepest = self.deepest.max(self.open.len());
        }
        while self.open.last() == Some(&0) {
            self.open.pop();
        }
    }
}

/// The structures of a footer.
const FILE_METADATA: KnownFields = &[
    (1, I32),                                // version
    (2, List(&Struct(SCHEMA_ELEMENT))),      // schema
    (3, I64),                                // num_rows
    (4, List(&Struct(ROW_GROUP))),           // row_groups
    (5, KEY_VALUES),                         // key_value_metadata
    (6, Binary),                             // created_by
    (7, List(&Struct(&[(1, Struct(&[]))]))), // column_orders
    (9, Binary),                             // footer_signing_key_metadata
];

const KEY_VALUES: FieldType = List(&Struct(&[(1, Binary), (2, Binary)]));

const SCHEMA_ELEMENT: KnownFields = &[
    (1, I32),                   // type
    (2, I32),                   // type_length
    (3, I32),                   // repetition_type
    (4, Binary),                // name
    (5, I32),                   // num_children
    (6, I32),                   // converted_type
    (7, I32),                   // scale
    (8, I32),                   // precision
    (9, I32),                   // field_id
    (10, Struct(LOGICAL_TYPE)), // logical_type
];

const LOGICAL_TYPE: KnownFields = &[
    (1, Struct(&[])),                                  // STRING
    (2, Struct(&[])),                                  // MAP
    (3, Struct(&[])),                                  // LIST
    (4, Struct(&[])),                                  // ENUM
    (5, Struct(&[(1, I32), (2, I32)])),                // DECIMAL
    (6, Struct(&[])),                                  // DATE
    (7, Struct(&[(1, Bool), (2, Struct(TIME_UNIT))])), // TIME
    (8, Struct(&[(1, Bool), (2, Struct(TIME_UNIT))])), // TIMESTAMP
    (10, Struct(&[(1, I8), (2, Bool)])),               // INTEGER
    (11, Struct(&[])),                                 // UNKNOWN
    (12, Struct(&[])),                                 // JSON
    (13, Struct(&[])),                                 // BSON
    (14, Struct(&[])),                                 // UUID
    (15, Struct(&[])),                                 // FLOAT16
    (16, Struct(&[(1, I8)])),                          // VARIANT
    (17, Struct(&[(1, Binary)])),                      // GEOMETRY
    (18, Struct(&[(1, Binary), (2, I32)])),            // GEOGRAPHY
];

const TIME_UNIT: KnownFields = &[(1, Struct(&[])), (2, Struct(&[])), (3, Struct(&[]))];

const ROW_GROUP: KnownFields = &[
    (1, List(&Struct(COLUMN_CHUNK))),                      // columns
    (2, I64),                                              // total_byte_size
    (3, I64),                                              // num_rows
    (4, List(&Struct(&[(1, I32), (2, Bool), (3, Bool)]))), // sorting_columns
    (5, I64),                                              // file_offset
    (6, I64),                                              // total_compressed_size
    (7, I16),                                              // ordinal
];

const COLUMN_CHUNK: KnownFields = &[
    (1, Binary),                  // file_path
    (2, I64),                     // file_offset
    (3, Struct(COLUMN_METADATA)), // meta_data
    (4, I64),                     // offset_index_offset
    (5, I32),                     // offset_index_length
    (6, I64),                     // column_index_offset
    (7, I32),                     // column_index_length
    (9, Binary),                  // encrypted_column_metadata
];

const COLUMN_METADATA: KnownFields = &[
    (1, I32),                                                    // type
    (2, List(&I32)),                                             // encodings
    (3, List(&Binary)),                                          // path_in_schema
    (4, I32),                                                    // codec
    (5, I64),                                                    // num_values
    (6, I64),                                                    // total_uncompressed_size
    (7, I64),                                                    // total_compressed_size
    (8, KEY_VALUES),                                             // key_value_metadata
    (9, I64),                                                    // data_page_offset
    (10, I64),                                                   // index_page_offset
    (11, I64),                                                   // dictionary_page_offset
    (12, Struct(STATISTICS)),                                    // statistics
    (13, List(&Struct(&[(1, I32), (2, I32), (3, I32)]))),        // encoding_stats
    (14, I64),                                                   // bloom_filter_offset
    (15, I32),                                                   // bloom_filter_length
    (16, Struct(&[(1, I64), (2, List(&I64)), (3, List(&I64))])), // size_statistics
    (17, Struct(&[(1, Struct(BOUNDING_BOX)), (2, List(&I32))])), // geospatial_statistics
];

const STATISTICS: KnownFields =
    &[(1, Binary), (2, Binary), (3, I64), (4, I64), (5, Binary), (6, Binary), (7, Bool), (8, Bool)];

const BOUNDING_BOX: KnownFields =
    &[(1, Double), (2, Double), (3, Double), (4, Double), (5, Double), (6, Double), (7, Double), (8, Double)];

#[cfg(test)]
mod tests {
    use super::*;

    /// A footer of nothing but a schema, of elements with so many children.
    fn schema(children: &[i32]) -> Vec<u8> {
        let zigzag = |number: i32| {
            let mut left = (number << 1 ^ number >> 31) as u32;
            let mut bytes = Vec::new();
            while left > 0x7F {
                bytes.push(left as u8 | 0x80);
                left >>= 7;
            }
            bytes.push(left as u8);
            bytes
        };
        let element = |&children: &i32| [&[0x48, 1, b'a', 0x15], &zigzag(children)[..], &[0]].concat();
        let count = children.len() as u32;
        let head = [0x29, 0xFC, count as u8 | 0x80, (count >> 7) as u8 | 0x80, (count >> 14) as u8];
        [&head[..], &children.iter().flat_map(element).collect::<Vec<_>>(), &[0]].concat()
    }

    #[test]
    fn a_schema_is_a_tree_of_the_elements_that_are_there() {
        assert_eq!(check(&schema(&[2, 0, 2, 0, 0])), Ok(()));
        let wide = [&[9999][..], &[0; 9999]].concat();
        assert_eq!(check(&schema(&wide)), Ok(()));
        let many: Vec<i32> = [1998].into_iter().chain([1, 0].repeat(999)).collect();
        assert_eq!(check(&schema(&many)), Ok(()), "groups beside each other are not deep");
        for promise in [i32::MAX, -1, i32::MIN] {
            assert!(check(&schema(&[1, promise])).unwrap_err().contains("promises"), "{promise}");
        }
        // The crate would go down a step for each, until the stack is over.
        assert!(check(&schema(&[1; 100_000])).unwrap_err().contains("too deep"));
    }
}
