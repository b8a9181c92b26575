//! Checks how many values a page may hold. The `parquet` crate allocates as many lengths and dictionary
//! entries as a page claims, before it looks for them.

use parquet::basic::Encoding;
use parquet::column::page::Page;

/// The most values of a page whose equal lengths may take no bytes. Writers begin a new page after about ten
/// thousand values, or after a mebibyte of text.
const MAX_VALUES: u64 = 1 << 24;

/// The bytes of a dictionary entry's length, so the least that an entry takes.
const LENGTH: usize = 4;

type CheckResult<T> = Result<T, String>;

/// Checks a page of a column that has definition levels up to `max_def_level` and no repetition levels.
///
/// # Errors
/// What is wrong with the page.
pub(super) fn check(page: &Page, max_def_level: i16) -> CheckResult<()> {
    match page {
        Page::DictionaryPage { buf, num_values, .. } => {
            let fits = *num_values as usize <= buf.len() / LENGTH;
            if fits { Ok(()) } else { Err(format!("{num_values} texts in {} bytes", buf.len())) }
        }
        Page::DataPage { buf, num_values, encoding, def_level_encoding, .. } => {
            let begin = levels(buf, *num_values, *def_level_encoding, max_def_level)?;
            lengths(*encoding, &buf[begin..], *num_values)
        }
        Page::DataPageV2 { buf, num_values, encoding, def_levels_byte_len, rep_levels_byte_len, .. } => {
            let begin = (*def_levels_byte_len as usize).saturating_add(*rep_levels_byte_len as usize);
            let values = buf.get(begin..).ok_or("levels longer than it")?;
            lengths(*encoding, values, *num_values)
        }
    }
}

/// Bytes of the definition levels before the values, in the first version of pages.
fn levels(bytes: &[u8], num_values: u32, encoding: Encoding, max_def_level: i16) -> CheckResult<usize> {
    if max_def_level <= 0 {
        return Ok(0);
    }
    #[allow(deprecated)]
    let length = match encoding {
        Encoding::RLE => {
            let (length, _) = bytes.split_first_chunk::<4>().ok_or("its levels are cut short")?;
            usize::try_from(i32::from_le_bytes(*length)).ok().and_then(|length| length.checked_add(4))
        }
        Encoding::BIT_PACKED => {
            let bits = i16::BITS - max_def_level.leading_zeros();
            usize::try_from((u64::from(num_values) * u64::from(bits)).div_ceil(8)).ok()
        }
        other => return Err(format!("levels encoded as {other}")),
    };
    length.filter(|&length| length <= bytes.len()).ok_or_else(|| "levels longer than it".to_owned())
}

/// Checks the lists of lengths at the beginning of delta encodings.
fn lengths(encoding: Encoding, values: &[u8], num_values: u32) -> CheckResult<()> {
    let most = u64::from(num_values).min(MAX_VALUES);
    match encoding {
        Encoding::DELTA_LENGTH_BYTE_ARRAY => delta_list(values, most).map(drop),
        Encoding::DELTA_BYTE_ARRAY => {
            let suffixes = delta_list(values, most)?;
            delta_list(&values[suffixes..], most).map(drop)
        }
        _ => Ok(()),
    }
}

/// Walks a `DELTA_BINARY_PACKED` list of at most `most` numbers and returns where it ends.
fn delta_list(bytes: &[u8], most: u64) -> CheckResult<usize> {
    let mut at = 0;
    let [block, minis, count, _first] = [(); 4].map(|()| varint(bytes, &mut at));
    let (block, minis, count) = (block?, minis?, count?);
    if count > most {
        return Err(format!("{count} lengths, and it may have {most}"));
    }
    let per_mini = block.checked_div(minis).ok_or("blocks of no parts")?;
    let cut = || "its lengths are cut short".to_owned();
    let mut left = count.saturating_sub(1);
    while left > 0 {
        varint(bytes, &mut at)?; // the smallest difference
        let minis = usize::try_from(minis).ok().and_then(|minis| at.checked_add(minis)).ok_or_else(cut)?;
        let widths = bytes.get(at..minis).ok_or_else(cut)?;
        at = minis;
        for &width in widths {
            if left == 0 {
                break;
            }
            let packed = u64::from(width).checked_mul(per_mini).ok_or_else(cut)? / 8;
            at = usize::try_from(packed).ok().and_then(|packed| at.checked_add(packed)).ok_or_else(cut)?;
            left = left.saturating_sub(per_mini);
        }
    }
    if at <= bytes.len() { Ok(at) } else { Err(cut()) }
}

/// Seven bits of a number in each byte, the lowest first.
fn varint(bytes: &[u8], at: &mut usize) -> CheckResult<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.get(*at).ok_or("its lengths are cut short")?;
        *at += 1;
        value |= u64::from(byte & 0x7F) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err("a number without an end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two milliards, as a varint.
    const MANY: [u8; 5] = [0xFF, 0xFF, 0xFF, 0xFF, 0x07];

    /// A list of `count` numbers that are alike, in blocks of 128 in 4 parts: one block if there are few.
    fn alike(count: &[u8]) -> Vec<u8> {
        [&[0x80, 0x01, 0x04], count, &[0x02, 0x00, 0, 0, 0, 0]].concat()
    }

    fn first_version(encoding: Encoding, values: &[u8]) -> Page {
        let levels = [2, 0, 0, 0, 0x04, 0x01];
        let buf = [&levels, values].concat().into();
        let def_level_encoding = Encoding::RLE;
        let rep_level_encoding = Encoding::RLE;
        Page::DataPage {
            buf,
            num_values: u32::MAX,
            encoding,
            def_level_encoding,
            rep_level_encoding,
            statistics: None,
        }
    }

    fn second_version(encoding: Encoding, values: &[u8]) -> Page {
        Page::DataPageV2 {
            buf: [&[0x04, 0x01], values].concat().into(),
            num_values: u32::MAX,
            encoding,
            num_nulls: 0,
            num_rows: 9,
            def_levels_byte_len: 2,
            rep_levels_byte_len: 0,
            is_compressed: false,
            statistics: None,
        }
    }

    #[test]
    fn lists_of_lengths_that_no_page_has_are_refused() {
        let lists = Encoding::DELTA_LENGTH_BYTE_ARRAY;
        let two_lists = Encoding::DELTA_BYTE_ARRAY;
        for page in [first_version, second_version] {
            let checked = |encoding, values: &[u8]| check(&page(encoding, values), 1);
            assert_eq!(checked(lists, &alike(&[9])), Ok(()));
            assert_eq!(checked(two_lists, &[alike(&[9]), alike(&[9])].concat()), Ok(()));
            assert!(checked(lists, &alike(&MANY)).unwrap_err().contains("2147483647 lengths"));
            assert!(checked(two_lists, &alike(&MANY)).is_err());
            // Behind the first list, wherever it ends.
            assert!(checked(two_lists, &[alike(&[9]), alike(&MANY)].concat()).is_err());
            let wide = [&[0x80, 0x01, 0x04, 9, 0x02, 0x00, 3, 7, 7, 7][..], &[0; 12], &alike(&MANY)].concat();
            assert!(checked(two_lists, &wide).unwrap_err().contains("2147483647 lengths"));
            assert!(checked(lists, &alike(&[9])[..6]).unwrap_err().contains("cut short"));
            assert!(checked(lists, &[0x80, 0x01, 0, 9, 0]).is_err(), "blocks of no parts");
            assert_eq!(checked(Encoding::PLAIN, &MANY), Ok(()));
        }
    }

    #[test]
    fn a_dictionary_has_no_more_texts_than_lengths() {
        let dictionary = |num_values| Page::DictionaryPage {
            buf: vec![0; 8].into(),
            num_values,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        };
        assert_eq!(check(&dictionary(2), 1), Ok(()));
        assert_eq!(check(&dictionary(u32::MAX), 1), Err("4294967295 texts in 8 bytes".to_owned()));
    }
}
