//! Addresses and paths, as far as a client of the hub needs them.

/// The longest path of a file in a model. File systems take 255 bytes for each part.
const MAX_PATH: usize = 512;
const MAX_PART: usize = 255;

/// Whether a path stays within the folder that it is joined to, on every system: no root, no drive, no `..`,
/// nothing empty, nothing that a terminal would obey.
pub(crate) fn is_inner(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != ".." && part.len() <= MAX_PART;
    path.len() <= MAX_PATH
        && path.split('/').all(plain)
        && !path.contains(|c: char| c == '\\' || c == ':' || c.is_control())
}

/// Whether a text may name a blob or a snapshot: one part of a path, of letters and digits.
pub(crate) fn is_digest_like(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(allowed)
}

/// Whether a text is a commit's full name.
pub(crate) fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

/// A text as a part of an address's path (RFC 3986: all but unreserved characters are escaped).
pub(crate) fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

/// A path as that of an address: its parts are escaped.
pub(crate) fn escaped_path(path: &str) -> String {
    path.split('/').map(escaped).collect::<Vec<_>>().join("/")
}

/// `https://host:port` of an address, in lower case.
pub(crate) fn origin(address: &str) -> Option<String> {
    let (scheme, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    let default = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let host = host.strip_suffix(default).unwrap_or(host);
    (!host.is_empty()).then(|| format!("{scheme}://{host}").to_lowercase())
}

/// The host of an address, for a message.
pub(crate) fn host(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or(rest).rsplit('@').next().unwrap_or(rest)
}

/// Where a redirect leads, from the address that it came from.
pub(crate) fn join(base: &str, location: &str) -> Option<String> {
    if location.contains(|c: char| c.is_control() || c == ' ') {
        return None;
    }
    if location.starts_with("http://") || location.starts_with("https://") {
        return Some(location.to_owned());
    }
    let (scheme, rest) = base.split_once("://")?;
    if let Some(elsewhere) = location.strip_prefix("//") {
        return Some(format!("{scheme}://{elsewhere}"));
    }
    if location.split(['/', '?', '#']).next().is_some_and(|part| part.contains(':')) {
        return None; // another scheme
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    if location.starts_with('/') {
        return Some(format!("{scheme}://{authority}{location}"));
    }
    let path = rest[authority.len()..].split(['?', '#']).next()?;
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    Some(format!("{scheme}://{authority}{folder}/{location}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_is_followed_to_where_it_says() {
        let base = "https://hub.co/org/name/resolve/main/a.bin?x=1";
        for (location, joined) in [
            ("https://cdn.co/y?z", Some("https://cdn.co/y?z")),
            ("//cdn.co/y", Some("https://cdn.co/y")),
            ("/other/name", Some("https://hub.co/other/name")),
            ("b.bin", Some("https://hub.co/org/name/resolve/main/b.bin")),
            ("file:///etc/passwd", None),
            ("javascript:x", None),
            ("/a b", None),
        ] {
            assert_eq!(join(base, location).as_deref(), joined, "{location}");
        }
    }

    #[test]
    fn hosts_are_told_apart_by_scheme_name_and_port() {
        let same = |a, b| origin(a) == origin(b);
        assert!(same("https://Hub.co/a", "https://hub.co:443/b?c"));
        assert!(same("http://127.0.0.1:8000", "http://127.0.0.1:8000/x"));
        for (a, b) in [
            ("https://hub.co", "http://hub.co"),
            ("https://hub.co", "https://hub.co:8443"),
            ("https://hub.co", "https://hub.co.evil.co"),
            ("https://hub.co", "https://hub.co@evil.co/"),
        ] {
            assert!(!same(a, b), "{a} {b}");
        }
        assert_eq!(host("https://user:secret@hub.co:1/x?signature=1"), "hub.co:1");
    }

    #[test]
    fn only_paths_within_the_folder_are_inner() {
        for path in ["a", "a/b.json", "a b/ü.gguf", ".gitattributes", "..a", "a..b/c"] {
            assert!(is_inner(path), "{path}");
        }
        let (long, deep) = ("a".repeat(256), "a/".repeat(300) + "a");
        for path in
            ["", "/a", "a/", "a//b", "..", "a/../b", "./a", "a/.", "C:/a", "a\\b", "a\0", "a\n", &long, &deep]
        {
            assert!(!is_inner(path), "{path:?}");
        }
        for (text, may) in [("0a9f", true), ("", false), ("../x", false), ("a.b", false), ("a/b", false)] {
            assert_eq!(is_digest_like(text), may, "{text}");
        }
    }

    #[test]
    fn paths_are_escaped_part_by_part() {
        assert_eq!(escaped_path("a b/ü#?.gguf"), "a%20b/%C3%BC%23%3F.gguf");
        assert_eq!(escaped("refs/pr/3"), "refs%2Fpr%2F3");
    }
}
