//! Walks Thrift's compact encoding and builds nothing. It only checks that all bytes are there.
//!
//! Parquet's headers use this encoding, and the `parquet` crate allocates a list by its stated length before
//! it reads the list. A file of a few bytes could ask for a terabyte that way. This walk comes first and
//! costs almost nothing. Format: `thrift-compact-protocol.md` in the Apache Thrift repository.

/// Deeper nesting than any parquet header has.
const MAX_DEPTH: usize = 32;

/// Why a walk ended early.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ThriftFault {
    /// The bytes end before the structure does.
    Short,
    /// The bytes are not Thrift.
    Malformed,
}

/// The type of a field.
pub(super) enum FieldType {
    Bool,
    I8,
    I16,
    I32,
    I64,
    Double,
    Binary,
    List(&'static FieldType),
    Struct(KnownFields),
}

/// The fields of a structure that the `parquet` crate knows. The crate reads them with the type that they
/// should have, whatever type the file states. So a known field with another type is refused here. Other
/// fields may have any type.
pub(super) type KnownFields = &'static [(i64, FieldType)];

impl FieldType {
    /// Whether the protocol writes this type with the code `number`.
    fn is(&self, number: u8) -> bool {
        match self {
            Self::Bool => matches!(number, 1 | 2),
            Self::I8 => number == 3,
            Self::I16 => number == 4,
            Self::I32 => number == 5,
            Self::I64 => number == 6,
            Self::Double => number == 7,
            Self::Binary => number == 8,
            Self::List(_) => number == 9,
            Self::Struct(_) => number == 12,
        }
    }

    fn fields(&self) -> KnownFields {
        match self {
            Self::Struct(fields) => fields,
            _ => &[],
        }
    }
}

/// Walks the structure at the beginning of `bytes`, which has these fields. Calls `visit(place, value)` for
/// each of its integers and booleans, and for those of a structure, or of a list of structures, in its field
/// n. Where such a structure ends, `visit` gets the field 0. Returns the structure's length in bytes.
pub(super) fn walk(bytes: &[u8], fields: KnownFields, field: &mut Field<'_>) -> Result<usize, ThriftFault> {
    let mut walker = Walker { bytes, at: 0 };
    walker.structure(Position { depth: 0, within: Some(0) }, fields, field)?;
    Ok(walker.at)
}

/// How deep a structure is, and in which field of the outermost structure it stands, if its numbers are
/// visited.
#[derive(Clone, Copy)]
struct Position {
    depth: usize,
    within: Option<i64>,
}

/// Gets a number and its place.
type Field<'f> = dyn FnMut((i64, i64), i64) + 'f;

struct Walker<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl Walker<'_> {
    fn byte(&mut self) -> Result<u8, ThriftFault> {
        let byte = *self.bytes.get(self.at).ok_or(ThriftFault::Short)?;
        self.at += 1;
        Ok(byte)
    }

    fn skip(&mut self, count: u64) -> Result<(), ThriftFault> {
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(ThriftFault::Short);
        }
        self.at += count as usize;
        Ok(())
    }

    fn varint(&mut self) -> Result<u64, ThriftFault> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7F) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(ThriftFault::Malformed)
    }

    fn zigzag(&mut self) -> Result<i64, ThriftFault> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn structure(
        &mut self,
        place: Position,
        fields: KnownFields,
        field: &mut Field<'_>,
    ) -> Result<(), ThriftFault> {
        let mut id = 0i64;
        loop {
            let header = self.byte()?;
            if header == 0 {
                place.visit(0, 0, field);
                return Ok(());
            }
            id = match header >> 4 {
                0 => self.zigzag()?,
                delta => id.wrapping_add(i64::from(delta)),
            };
            if !(1..=i64::from(i16::MAX)).contains(&id) {
                return Err(ThriftFault::Malformed); // 16 bits would turn it into another field
            }
            let known = fields.iter().find(|(field, _)| *field == id).map(|(_, kind)| kind);
            if known.is_some_and(|known| !known.is(header & 0x0F)) {
                return Err(ThriftFault::Malformed);
            }
            let inner = Position { depth: place.depth + 1, within: (place.depth == 0).then_some(id) };
            match header & 0x0F {
                kind @ (1 | 2) => place.visit(id, i64::from(kind == 1), field), // a boolean's value is its type
                4..=6 => place.visit(id, self.zigzag()?, field),
                kind => self.value(kind, known, inner, field)?,
            }
        }
    }

    fn value(
        &mut self,
        kind: u8,
        known: Option<&FieldType>,
        place: Position,
        field: &mut Field<'_>,
    ) -> Result<(), ThriftFault> {
        if place.depth > MAX_DEPTH {
            return Err(ThriftFault::Malformed);
        }
        match kind {
            3 => self.skip(1),
            // Lists of booleans: the crate counts their elements as 0 bytes when it skips them. No header has
            // such a list.
            1 | 2 => Err(ThriftFault::Malformed),
            4..=6 => self.zigzag().map(drop),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(length)
            }
            9 | 10 => {
                let header = self.byte()?;
                let count = if header >> 4 == 15 { self.varint()? } else { u64::from(header >> 4) };
                let element = match known {
                    Some(FieldType::List(element)) => Some(*element),
                    _ => None,
                };
                if count > 0 && element.is_some_and(|element| !element.is(header & 0x0F)) {
                    return Err(ThriftFault::Malformed);
                }
                self.elements(count, &[header & 0x0F], element, place, field)
            }
            11 => match self.varint()? {
                0 => Ok(()),
                count => {
                    let kinds = self.byte()?;
                    self.elements(count, &[kinds >> 4, kinds & 0x0F], None, place, field)
                }
            },
            12 => self.structure(place, known.map_or(&[], FieldType::fields), field),
            13 => self.skip(16),
            _ => Err(ThriftFault::Malformed),
        }
    }

    /// Every element takes at least one byte, so a count above the number of bytes left is false.
    fn elements(
        &mut self,
        count: u64,
        kinds: &[u8],
        element: Option<&FieldType>,
        place: Position,
        field: &mut Field<'_>,
    ) -> Result<(), ThriftFault> {
        if count > (self.bytes.len() - self.at) as u64 {
            return Err(ThriftFault::Short);
        }
        let place = Position { depth: place.depth + 1, ..place };
        for _ in 0..count {
            for &kind in kinds {
                self.value(kind, element, place, field)?;
            }
        }
        Ok(())
    }
}

impl Position {
    fn visit(self, id: i64, value: i64, field: &mut Field<'_>) {
        if let Some(within) = self.within {
            field((within, id), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_are_reported_with_their_place() {
        // 1: i32 = 3, 2: i32 = -2, 5: { 1: i32 = 7 }, 6: [{ 2: i32 = 1, 3: { 1: i32 = 1 } }, {}]
        let bytes =
            [0x15, 6, 0x15, 3, 0x3C, 0x15, 14, 0, 0x19, 0x2C, 0x25, 2, 0x1C, 0x15, 2, 0, 0, 0, 0, 0xFF];
        let mut seen = Vec::new();
        assert_eq!(walk(&bytes, &[], &mut |id, value| seen.push((id, value))), Ok(19));
        let all = [
            ((0, 1), 3),
            ((0, 2), -2),
            ((5, 1), 7),
            ((5, 0), 0),
            ((6, 2), 1),
            ((6, 0), 0),
            ((6, 0), 0),
            ((0, 0), 0),
        ];
        assert_eq!(seen, all);
    }

    #[test]
    fn a_list_longer_than_the_file_is_refused() {
        // 1: list of 2^31 structures
        let bytes = [0x19, 0xFC, 0xFF, 0xFF, 0xFF, 0xFF, 0x07, 0, 0, 0];
        assert_eq!(walk(&bytes, &[], &mut |_, _| {}), Err(ThriftFault::Short));
    }

    #[test]
    fn a_field_that_is_not_what_its_reader_takes_it_for_is_refused() {
        const SHAPE: KnownFields = &[
            (1, FieldType::Binary),
            (2, FieldType::List(&FieldType::Struct(&[(1, FieldType::I64)]))),
            (3, FieldType::Bool),
        ];
        let walked = |bytes: &[u8]| walk(bytes, SHAPE, &mut |_, _| {});
        // 1: "a", 2: [{ 1: i64 = 1 }], 3: true, 4: what nobody knows
        assert_eq!(walked(&[0x18, 1, b'a', 0x19, 0x1C, 0x16, 2, 0, 0x11, 0x15, 2, 0]), Ok(12));
        assert_eq!(walked(&[0x29, 0, 0]), Ok(3), "an empty list may be one of anything");
        let others: [&[u8]; 5] = [
            &[0x79, 0x21, 1, 1, 0],                // 7: a list of booleans
            &[0x15, 2, 0],                         // 1: a number
            &[0x29, 0x15, 2, 0],                   // 2: a list of numbers
            &[0x29, 0x1C, 0x15, 2, 0, 0],          // 2: a list of a structure with 1: i32
            &[0x08, 0x82, 0x80, 0x08, 1, b'a', 0], // 65537, which is 1 in 16 bits
        ];
        for bytes in others {
            assert_eq!(walked(bytes), Err(ThriftFault::Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn bottomless_nesting_is_refused() {
        assert_eq!(walk(&[0x1C; 1000], &[], &mut |_, _| {}), Err(ThriftFault::Malformed));
        assert_eq!(walk(&[0x19; 1000], &[], &mut |_, _| {}), Err(ThriftFault::Malformed));
    }

    proptest! {
        #[test]
        fn any_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(length) = walk(&bytes, &[], &mut |_, _| {}) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
