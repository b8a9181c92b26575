//! `tojson` as `transformers` defines it: Python's `json.dumps` without HTML escapes.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use super::python::float;

/// The deepest nesting of lists, less than Python's recursion limit.
const DEPTH_LIMIT: usize = 500;

/// `value | tojson(ensure_ascii=False, indent=None, separators=None, sort_keys=False)`.
pub(super) fn tojson(
    state: &State,
    value: &Value,
    ensure_ascii: Option<bool>,
    indent: Option<Value>,
    options: Kwargs,
) -> Result<Value, Error> {
    let indent = match options.get::<Option<Value>>("indent")?.or(indent) {
        Some(indent) if !indent.is_none() => Some(indentation(&indent)?),
        _ => None,
    };
    let separators = options.get::<Option<Value>>("separators")?.filter(|pair| !pair.is_none());
    let [item, key] = match separators {
        Some(pair) => separator_pair(&pair)?,
        None => [if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()],
    };
    let mut writer = Writer {
        state,
        text: String::new(),
        indent,
        item,
        key,
        ascii: options.get::<Option<bool>>("ensure_ascii")?.or(ensure_ascii).unwrap_or(false),
        sort: options.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    options.assert_all_used()?;
    writer.value(value, 0)?;
    Ok(Value::from(writer.text))
}

/// `indent`: a number of spaces, or the text itself.
fn indentation(indent: &Value) -> Result<String, Error> {
    const WIDEST: i64 = 64;
    if let Some(text) = indent.as_str() {
        return Ok(text.to_owned());
    }
    match indent.as_i64() {
        Some(spaces) if spaces <= WIDEST => Ok(" ".repeat(usize::try_from(spaces).unwrap_or(0))),
        _ => Err(invalid(format!("tojson: indent is a text or a number up to {WIDEST}, not {indent}"))),
    }
}

fn separator_pair(pair: &Value) -> Result<[String; 2], Error> {
    let parts =
        pair.try_iter()?.take(3).map(|part| part.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>();
    parts
        .and_then(|parts| <[String; 2]>::try_from(parts).ok())
        .ok_or_else(|| invalid("tojson: separators are two texts, between items and after keys".to_owned()))
}

fn invalid(reason: String) -> Error {
    Error::new(ErrorKind::InvalidOperation, reason)
}

struct Writer<'a, 'template, 'env> {
    state: &'a State<'template, 'env>,
    text: String,
    /// The indentation of one level. `None` writes everything in one line.
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    sort: bool,
}

impl Writer<'_, '_, '_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        self.state.consume_fuel(1)?;
        if depth > DEPTH_LIMIT {
            return Err(invalid(format!("tojson: lists within lists deeper than {DEPTH_LIMIT}")));
        }
        match value.kind() {
            ValueKind::None => self.text.push_str("null"),
            ValueKind::Bool => self.text.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default())?,
            ValueKind::Map => self.map(value, depth)?,
            ValueKind::Seq => {
                let items = value.try_iter()?.checked().collect::<Result<Vec<_>, _>>()?;
                self.container(['[', ']'], &items, depth, |writer, item| writer.value(item, depth + 1))?;
            }
            kind => return Err(invalid(format!("tojson: a value of type {kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn number(&mut self, value: &Value) {
        match value.is_integer() {
            true => write!(self.text, "{value}").unwrap_or_default(),
            false => {
                let number = f64::try_from(value.clone()).unwrap_or(f64::NAN);
                self.text.push_str(match number {
                    n if n.is_nan() => "NaN",
                    f64::INFINITY => "Infinity",
                    f64::NEG_INFINITY => "-Infinity",
                    _ => return self.text.push_str(&float(number)),
                });
            }
        }
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let pairs = value.as_object().and_then(|object| object.try_iter_pairs());
        let mut pairs = pairs.into_iter().flatten().collect::<Vec<_>>();
        if self.sort {
            self.state.consume_fuel(pairs.len() as u64)?;
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
        }
        self.container(['{', '}'], &pairs, depth, |writer, (key, value)| {
            match key.kind() {
                ValueKind::String => writer.string(key.as_str().unwrap_or_default())?,
                ValueKind::None | ValueKind::Bool | ValueKind::Number => {
                    writer.text.push('"');
                    writer.value(key, depth + 1)?;
                    writer.text.push('"');
                }
                kind => return Err(invalid(format!("tojson: a value of type {kind} cannot be a key"))),
            }
            let separator = writer.key.clone();
            writer.text.push_str(&separator);
            writer.value(value, depth + 1)
        })
    }

    fn container<T>(
        &mut self,
        brackets: [char; 2],
        items: &[T],
        depth: usize,
        mut write: impl FnMut(&mut Self, &T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.text.push(brackets[0]);
        for (index, item) in items.iter().enumerate() {
            self.state.consume_fuel(((self.item.len() + self.key.len()) / 64) as u64)?;
            if index > 0 {
                let separator = self.item.clone();
                self.text.push_str(&separator);
            }
            self.line(depth + 1)?;
            write(self, item)?;
        }
        if !items.is_empty() {
            self.line(depth)?;
        }
        self.text.push(brackets[1]);
        Ok(())
    }

    /// Begins a new line, if lines are used.
    fn line(&mut self, depth: usize) -> Result<(), Error> {
        let Some(indent) = &self.indent else { return Ok(()) };
        self.state.consume_fuel((indent.len() * depth / 64) as u64)?;
        self.text.push('\n');
        self.text.extend(std::iter::repeat_n(indent.as_str(), depth));
        Ok(())
    }

    fn string(&mut self, string: &str) -> Result<(), Error> {
        self.state.consume_fuel((string.len() / 16) as u64)?;
        self.text.push('"');
        for c in string.chars() {
            match c {
                '"' => self.text.push_str("\\\""),
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\u{8}' => self.text.push_str("\\b"),
                '\u{c}' => self.text.push_str("\\f"),
                c if c < ' ' => write!(self.text, "\\u{:04x}", u32::from(c)).unwrap_or_default(),
                // Python does not escape DEL, with `ensure_ascii` on or off.
                c if self.ascii && !c.is_ascii() => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        write!(self.text, "\\u{unit:04x}").unwrap_or_default();
                    }
                }
                c => self.text.push(c),
            }
        }
        self.text.push('"');
        Ok(())
    }
}
