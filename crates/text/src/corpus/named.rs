//! The text column's name, and what is said if no record has it.

use std::path::Path;

use crate::error::{Error, Result};
use offramp_files::one_line;

/// The text column's name, and whether any record has it.
#[derive(Debug)]
pub(super) struct Named {
    column: String,
    found: bool,
    /// The columns of the first record that does not have this one.
    others: Option<Vec<String>>,
}

impl Named {
    pub(super) fn new(column: &str) -> Self {
        Self { column: column.to_owned(), found: false, others: None }
    }

    pub(super) fn column(&self) -> &str {
        &self.column
    }

    pub(super) fn has(&mut self) {
        self.found = true;
    }

    pub(super) fn lacks(&mut self, others: impl FnOnce() -> Vec<String>) {
        self.others.get_or_insert_with(others);
    }

    /// An error if there were records and none had the column.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        match &self.others {
            Some(others) if !self.found => Err(Error::NoColumn {
                path: path.to_owned(),
                column: self.column.clone(),
                found: one_line(&others.join(", ")),
            }),
            _ => Ok(()),
        }
    }
}
