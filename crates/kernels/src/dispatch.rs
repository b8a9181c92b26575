//! Which table is used: the processor's fastest, or the one that is asked for by name.

use crate::table::Table;
use std::ffi::OsString;
use std::sync::OnceLock;

/// The tables that this processor can run, the reference first, the fastest last.
pub fn available() -> Vec<&'static Table> {
    let mut tables = vec![&crate::reference::TABLE];
    #[cfg(target_arch = "x86_64")]
    tables.extend(crate::x86::tables());
    tables
}

/// `OFFRAMP_KERNELS` names a table that this processor does not have.
#[derive(Debug, thiserror::Error)]
#[error("OFFRAMP_KERNELS is {wanted:?}: this processor has {available}; unset it for the fastest", available = names())]
pub struct UnknownTable {
    wanted: OsString,
}

fn names() -> String {
    available().iter().map(|table| table.name).collect::<Vec<_>>().join(", ")
}

/// The fastest table, or the one that `OFFRAMP_KERNELS` names.
///
/// # Errors
/// If this processor has none of that name. A caller that checks this first never meets [`active`]'s panic.
pub fn choose() -> Result<&'static Table, UnknownTable> {
    named(std::env::var_os("OFFRAMP_KERNELS"))
}

fn named(wanted: Option<OsString>) -> Result<&'static Table, UnknownTable> {
    let tables = available();
    match wanted {
        None => Ok(tables[tables.len() - 1]),
        Some(wanted) => tables.into_iter().find(|table| wanted == table.name).ok_or(UnknownTable { wanted }),
    }
}

/// The table in use, chosen once as [`choose`] does.
///
/// # Panics
/// If `OFFRAMP_KERNELS` names a table that this processor does not have.
pub fn active() -> &'static Table {
    static ACTIVE: OnceLock<&'static Table> = OnceLock::new();
    ACTIVE.get_or_init(|| choose().unwrap_or_else(|error| panic!("{error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_chosen_by_its_name_or_is_the_fastest() {
        let tables = available();
        assert_eq!(tables[0].name, "reference");
        assert_eq!(named(None).expect("always one").name, tables[tables.len() - 1].name);
        for table in tables {
            assert_eq!(named(Some(table.name.into())).expect("it is available").name, table.name);
        }
    }

    #[test]
    fn a_table_that_is_not_there_is_one_line_that_names_those_that_are() {
        let mut unknown: Vec<OsString> = ["", "AVX2", "neon", " avx2", "avx2\n"].map(OsString::from).into();
        #[cfg(unix)]
        unknown.push(std::os::unix::ffi::OsStringExt::from_vec(vec![0xff])); // not UTF-8
        for wanted in unknown {
            let message = named(Some(wanted.clone())).expect_err("no such table").to_string();
            assert!(message.starts_with(&format!("OFFRAMP_KERNELS is {wanted:?}: ")), "{message}");
            assert!(message.contains(&names()) && !message.contains('\n'), "{message}");
        }
    }
}
