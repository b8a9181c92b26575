//! Changes a template's text before it is compiled. Parts that only `transformers` understands are removed,
//! and nesting that could overflow the stack is refused.
//!
//! - Line ends become `\n`, as in jinja2.
//! - `{% generation %}` … `{% endgeneration %}` marks an answer for training. It becomes `{% with %}`, which
//!   has the same scope and no other effect.
//! - A value that is assigned to an attribute of a namespace goes through the filter `_held`. The filter
//!   refuses endless nesting: `{% set ns.a = [ns.a] %}` in a loop, or a namespace that holds itself.

use super::error::{ChatTemplateError, Result};

/// The largest template in bytes. The longest real ones have about 30 KiB.
pub(super) const TEMPLATE_LIMIT: usize = 256 << 10;

/// The most bytes of one tag without its string literals. The compiler recurses once per operator.
const TAG_LIMIT: usize = 8 << 10;

/// The filter for values assigned to a namespace.
pub(super) const HELD: &str = "_held";

/// The template as the engine compiles it.
pub(super) fn prepare(origin: &str, source: &str) -> Result<String> {
    if source.len() > TEMPLATE_LIMIT {
        return Err(ChatTemplateError::TooLarge { file: origin.to_owned(), limit: TEMPLATE_LIMIT as u64 });
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut prepared = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = rest.find('{') {
        let (text, from) = rest.split_at(start);
        prepared.push_str(text);
        let length = match from.as_bytes().get(1) {
            Some(b'#') => from.find("#}").map_or(from.len(), |end| end + 2),
            Some(b'{') => {
                let tag = Tag::new(from, b"}}");
                check(origin, &source, from, &tag)?;
                tag.length
            }
            Some(b'%') => {
                let tag = Tag::new(from, b"%}");
                check(origin, &source, from, &tag)?;
                prepared.push_str(&rewrite(&from[..tag.length], &tag));
                let after = if tag.keyword(from) == "raw" { raw_end(from, tag.length) } else { tag.length };
                prepared.push_str(&from[tag.length..after]);
                rest = &from[after..];
                continue;
            }
            _ => 1,
        };
        prepared.push_str(&from[..length]);
        rest = &from[length..];
    }
    prepared.push_str(rest);
    Ok(prepared)
}

/// One `{{ … }}` or `{% … %}`, read as jinja2's lexer reads it: it does not end inside brackets or a string.
struct Tag {
    /// Its length in bytes, up to the end of the tag or of the text.
    length: usize,
    /// The position of the first `=` that is not inside brackets, a string or another operator.
    assignment: Option<usize>,
    /// The position of the first such `|`.
    pipe: Option<usize>,
    /// Bytes outside string literals.
    code: usize,
    /// Whether the tag ends, and its brackets match.
    whole: bool,
}

impl Tag {
    fn new(text: &str, end: &[u8; 2]) -> Self {
        let bytes = text.as_bytes();
        let mut tag = Self { length: bytes.len(), assignment: None, pipe: None, code: 0, whole: false };
        let mut depth = 0usize;
        let mut matched = true;
        let mut at = 2;
        while at < bytes.len() {
            if depth == 0 && bytes[at..].starts_with(end) {
                tag.length = at + 2;
                tag.whole = matched;
                return tag;
            }
            match bytes[at] {
                quote @ (b'"' | b'\'') => at = string_end(bytes, at, quote),
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' if depth > 0 => depth -= 1,
                b')' | b']' | b'}' => matched = false,
                b'=' if depth == 0 && tag.assignment.is_none() => tag.assignment = Some(at),
                b'|' if depth == 0 && tag.pipe.is_none() => tag.pipe = Some(at),
                _ => {}
            }
            tag.code += 1;
            at += 1;
        }
        tag
    }

    /// The first word of a `{% … %}`.
    fn keyword<'a>(&self, text: &'a str) -> &'a str {
        let inner = text[2..self.length].trim_start_matches(['-', '+']).trim_start();
        let length = inner.find(|c| !is_word(c)).unwrap_or(inner.len());
        &inner[..length]
    }
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The position of the quote that ends the string at `start`.
fn string_end(bytes: &[u8], start: usize, quote: u8) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at
}

/// The position of the `{% endraw %}` for the `{% raw %}` at the beginning of `text`, whose tag has `opening`
/// bytes.
fn raw_end(text: &str, opening: usize) -> usize {
    let mut at = opening;
    while let Some(found) = text[at..].find("{%") {
        at += found;
        let inner = text[at + 2..].trim_start_matches(['-', '+']).trim_start();
        if inner.starts_with("endraw") {
            return at;
        }
        at += 2;
    }
    text.len()
}

/// Refuses a tag that the engine would compile with another meaning, or that nests too deeply.
fn check(origin: &str, source: &str, from: &str, tag: &Tag) -> Result<()> {
    let reason = if tag.code > TAG_LIMIT {
        format!("a tag has {} bytes outside strings, at most {TAG_LIMIT} are read", tag.code)
    } else if let Some(name) = borrowed_default(&from[..tag.length], tag) {
        format!("a macro's argument has another one, {name:?}, as its default, which is not taken")
    } else {
        return Ok(());
    };
    let line = source[..source.len() - from.len()].matches('\n').count() + 1;
    Err(ChatTemplateError::Syntax { origin: origin.to_owned(), line, reason })
}

/// The argument that a later argument's default names. jinja2 allows that; the engine does not.
fn borrowed_default<'a>(whole: &'a str, tag: &Tag) -> Option<&'a str> {
    if !whole.starts_with("{%") || tag.keyword(whole) != "macro" {
        return None;
    }
    let (mut arguments, mut defaults) = (Vec::new(), false);
    let mut rest = &whole[whole.find('(')? + 1..];
    let mut depth = 0usize;
    while let Some(c) = rest.chars().next() {
        let word = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        if word > 0 && !c.is_ascii_digit() {
            match &rest[..word] {
                name if defaults && arguments.contains(&name) => return Some(name),
                name if !defaults => arguments.push(name),
                _ => {}
            }
            rest = &rest[word..];
            continue;
        }
        match c {
            '"' | '\'' => {
                let end = string_end(rest.as_bytes(), 0, c as u8);
                rest = rest.get(end..)?;
            }
            // An attribute is not an argument.
            '.' => {
                rest = rest[1..].trim_start_matches(is_word);
                continue;
            }
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => return None,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => defaults = false,
            '=' if depth == 0 => defaults = true,
            _ => {}
        }
        rest = &rest[rest.chars().next()?.len_utf8()..];
    }
    None
}

/// A `{% … %}` rewritten for the engine.
fn rewrite(whole: &str, tag: &Tag) -> String {
    match tag.keyword(whole) {
        "generation" => whole.replacen("generation", "with", 1),
        "endgeneration" => whole.replacen("endgeneration", "endwith", 1),
        // jinja2 keeps the line end after this tag, unlike after others.
        "raw" if tag.whole && !whole.ends_with("-%}") && !whole.ends_with("+%}") => {
            format!("{}+%}}", &whole[..whole.len() - 2])
        }
        "set" if tag.whole => rewrite_set(whole, tag).unwrap_or_else(|| whole.to_owned()),
        _ => whole.to_owned(),
    }
}

/// `{% set a.b = value %}` and `{% set a.b | filter %}`, with the value passed through the filter `_held`.
fn rewrite_set(whole: &str, tag: &Tag) -> Option<String> {
    let inner_end = whole[..whole.len() - 2].trim_end_matches(['-', '+']).len();
    let (closing, assignment) =
        (&whole[inner_end..], tag.assignment.filter(|at| tag.pipe.is_none_or(|pipe| *at < pipe)));
    let target_end = assignment.or(tag.pipe)?;
    if !whole[..target_end].contains('.') {
        return None;
    }
    Some(match assignment {
        Some(at) => {
            let (target, value) = (&whole[..=at], &whole[at + 1..inner_end]);
            format!("{target}({value})|{HELD} {closing}")
        }
        None => format!("{}|{HELD} {closing}", &whole[..inner_end]),
    })
}
