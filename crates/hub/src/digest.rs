//! The digests by which the hub names files: SHA-256 for large files, git's SHA-1 for small ones.

use ring::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};
use std::fmt::Write;

/// The digest of a file, as far as it has come.
pub(crate) struct Digest {
    name: &'static str,
    context: Option<Context>, // none: the name of the file is no digest that is known
}

impl Digest {
    /// For a file of `size` bytes that the hub names `etag`. Git's digest is of the size too, and says
    /// nothing where that is not known.
    pub(crate) fn of(etag: &str, size: Option<u64>) -> Self {
        let hex = etag.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        match (etag.len(), size) {
            (64, _) if hex => Self { name: "sha256", context: Some(Context::new(&SHA256)) },
            // The name of a blob in git: of its length, then of its bytes.
            (40, Some(size)) if hex => {
                let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
                context.update(format!("blob {size}\0").as_bytes());
                Self { name: "sha1", context: Some(context) }
            }
            _ => Self { name: "etag", context: None },
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        if let Some(context) = &mut self.context {
            context.update(bytes);
        }
    }

    /// What it is called, and its value in hexadecimal; no value if it is not known.
    pub(crate) fn finish(self) -> (&'static str, Option<String>) {
        let hex = |context: Context| {
            context.finish().as_ref().iter().fold(String::new(), |mut text, byte| {
                let _ = write!(text, "{byte:02x}");
                text
            })
        };
        (self.name, self.context.map(hex))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_those_of_sha256sum_and_of_git_hash_object() {
        for (etag, name) in [
            ("2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824", "sha256"),
            ("b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0", "sha1"), // printf hello | git hash-object --stdin
        ] {
            let mut digest = Digest::of(etag, Some(5));
            digest.update(b"hel");
            digest.update(b"lo");
            assert_eq!(digest.finish(), (name, Some(etag.to_owned())));
        }
        assert_eq!(Digest::of("12-abc", Some(5)).finish(), ("etag", None));
        assert_eq!(Digest::of(&"a".repeat(40), None).finish(), ("etag", None));
    }
}
