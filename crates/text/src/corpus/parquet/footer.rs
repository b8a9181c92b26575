//! What a parquet file's footer is made of, field by field, as `parquet.thrift` in the Apache Parquet
//! format's repository has it.
//!
//! The `parquet` crate reads a field that it knows as what it should be, not as what the file says that it
//! is. A file of a few hundred bytes in which the two differ leads it to a list's length where there is none,
//! and to an allocation of gigabytes.

use super::super::thrift::Kind::{Binary, Bool, Double, I8, I16, I32, I64, List, Struct};
use super::super::thrift::{Kind, Shape};

/// What a footer holds.
pub(super) const FILE_METADATA: Shape = &[
    (1, I32),                                // version
    (2, List(&Struct(SCHEMA_ELEMENT))),      // schema
    (3, I64),                                // num_rows
    (4, List(&Struct(ROW_GROUP))),           // row_groups
    (5, KEY_VALUES),                         // key_value_metadata
    (6, Binary),                             // created_by
    (7, List(&Struct(&[(1, Struct(&[]))]))), // column_orders
    (9, Binary),                             // footer_signing_key_metadata
];

const KEY_VALUES: Kind = List(&Struct(&[(1, Binary), (2, Binary)]));

const SCHEMA_ELEMENT: Shape = &[
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

const LOGICAL_TYPE: Shape = &[
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

const TIME_UNIT: Shape = &[(1, Struct(&[])), (2, Struct(&[])), (3, Struct(&[]))];

const ROW_GROUP: Shape = &[
    (1, List(&Struct(COLUMN_CHUNK))),                      // columns
    (2, I64),                                              // total_byte_size
    (3, I64),                                              // num_rows
    (4, List(&Struct(&[(1, I32), (2, Bool), (3, Bool)]))), // sorting_columns
    (5, I64),                                              // file_offset
    (6, I64),                                              // total_compressed_size
    (7, I16),                                              // ordinal
];

const COLUMN_CHUNK: Shape = &[
    (1, Binary),                  // file_path
    (2, I64),                     // file_offset
    (3, Struct(COLUMN_METADATA)), // meta_data
    (4, I64),                     // offset_index_offset
    (5, I32),                     // offset_index_length
    (6, I64),                     // column_index_offset
    (7, I32),                     // column_index_length
    (9, Binary),                  // encrypted_column_metadata
];

const COLUMN_METADATA: Shape = &[
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

const STATISTICS: Shape =
    &[(1, Binary), (2, Binary), (3, I64), (4, I64), (5, Binary), (6, Binary), (7, Bool), (8, Bool)];

const BOUNDING_BOX: Shape =
    &[(1, Double), (2, Double), (3, Double), (4, Double), (5, Double), (6, Double), (7, Double), (8, Double)];
