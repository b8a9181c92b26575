//! The template engine, configured as `transformers` configures jinja2: block tags leave no blank lines,
//! loops have `break` and `continue`, and there are a few more functions and filters.

use std::borrow::Cow;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::ValueKind;
use minijinja::{Environment, Error, ErrorKind, State, Value, escape_formatter};

use super::error::{ChatTemplateError, Result};
use super::{json, methods, python, source};
use offramp_model::one_line;

/// The name of the one template.
const NAME: &str = "template";

/// The deepest nesting of lists in a namespace.
const HELD_DEPTH: usize = 200;

/// The message of `raise_exception`, inside the engine's own error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// A compiled template.
#[derive(Debug, Clone)]
pub(super) struct Compiled {
    environment: Environment<'static>,
    origin: String,
}

impl Compiled {
    /// Compiles `source`; `origin` names it in messages. Deep templates need [`super::on_large_stack`].
    pub(super) fn new(origin: &str, source: &str) -> Result<Self> {
        let prepared = source::prepare(origin, source)?;
        let mut environment = environment();
        environment.add_template_owned(Cow::Borrowed(NAME), prepared).map_err(|error| {
            ChatTemplateError::Syntax {
                origin: origin.to_owned(),
                line: error.line().unwrap_or(0),
                reason: reason(&error),
            }
        })?;
        Ok(Self { environment, origin: origin.to_owned() })
    }

    /// Whether the template's text has `text` in it.
    pub(super) fn contains(&self, text: &str) -> bool {
        self.environment.get_template(NAME).is_ok_and(|template| template.source().contains(text))
    }

    /// Renders `context` in at most `steps` steps.
    pub(super) fn render(&self, context: Value, steps: u64) -> Result<String> {
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(steps));
        environment
            .get_template(NAME)
            .and_then(|template| template.render(context))
            .map_err(|error| self.failure(&error, steps))
    }

    fn failure(&self, error: &Error, steps: u64) -> ChatTemplateError {
        let origin = self.origin.clone();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            if let Some(Raised(message)) = inner.downcast_ref() {
                return ChatTemplateError::Refused { origin, message: one_line(message) };
            }
            source = inner.source();
        }
        match error.kind() {
            ErrorKind::OutOfFuel => ChatTemplateError::TooMuchWork { origin, steps },
            _ => ChatTemplateError::Render { origin, line: error.line().unwrap_or(0), reason: reason(error) },
        }
    }
}

/// The engine's message, without the position.
fn reason(error: &Error) -> String {
    match error.detail() {
        Some(detail) => one_line(&format!("{}: {detail}", error.kind())),
        None => one_line(&error.kind().to_string()),
    }
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("jinja2's own delimiters"));
    environment.set_debug(true);
    environment.set_unknown_method_callback(methods::call);
    environment.set_formatter(|out, state, value| match python::text(state, value)? {
        Some(text) => out.write_str(&text).map_err(Error::from),
        None => escape_formatter(out, state, value),
    });
    // `debug` prints everything that a template holds, which has no place in a prompt.
    environment.remove_global("debug");
    environment.remove_filter("pprint");
    environment.add_function("raise_exception", |message: &Value| -> std::result::Result<Value, Error> {
        let raised = Raised(message.to_string());
        Err(Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(raised))
    });
    environment.add_function("cycler", minijinja_contrib::globals::cycler);
    environment.add_function("joiner", minijinja_contrib::globals::joiner);
    environment.add_filter("tojson", json::tojson);
    environment.add_filter("string", python::string);
    environment.add_filter("escape", python::escape);
    environment.add_filter("e", python::escape);
    environment.add_filter("truncate", minijinja_contrib::filters::truncate);
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::String | ValueKind::Undefined)
    });
    environment.add_test("iterable", |value: &Value| {
        use ValueKind::{Iterable, Map, Seq, String, Undefined};
        matches!(value.kind(), Seq | Map | Iterable | String | Undefined)
    });
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    let namespace = namespace_type(&environment);
    environment.add_filter(source::HELD, move |state: &State, value: Value| held(state, value, namespace, 0));
    environment
}

/// The engine's name for the type of its namespaces, which it does not publish.
fn namespace_type(environment: &Environment) -> &'static str {
    let namespace = environment.compile_expression("namespace()").and_then(|call| call.eval(()));
    let namespace = namespace.expect("the engine has namespaces");
    namespace.as_object().expect("a namespace is an object").type_name()
}

/// A value as a namespace may hold it: of bounded depth, and not a namespace. Code that walks through a value
/// (printing, comparing or dropping it) uses one level of the stack for each level of the value.
fn held(state: &State, value: Value, namespace: &str, depth: usize) -> std::result::Result<Value, Error> {
    let refused = |reason: String| Err(Error::new(ErrorKind::InvalidOperation, reason));
    if !matches!(value.kind(), ValueKind::Seq | ValueKind::Map | ValueKind::Iterable) {
        return Ok(value);
    }
    let Some(object) = value.as_object() else { return Ok(value) };
    if object.type_name() == namespace {
        return refused("a namespace cannot hold a namespace".to_owned());
    }
    if depth > HELD_DEPTH {
        return refused(format!("a namespace holds lists within lists deeper than {HELD_DEPTH}"));
    }
    let mut items = Vec::new();
    match value.kind() {
        ValueKind::Map => {
            for (_, item) in object.try_iter_pairs().into_iter().flatten() {
                state.consume_fuel(1)?;
                held(state, item, namespace, depth + 1)?;
            }
            Ok(value)
        }
        kind => {
            for item in value.try_iter()?.checked() {
                state.consume_fuel(1)?;
                let item = held(state, item?, namespace, depth + 1)?;
                if kind == ValueKind::Iterable {
                    items.push(item);
                }
            }
            // An iterator can be used only once, and this function has used it.
            Ok(if kind == ValueKind::Iterable { Value::from(items) } else { value })
        }
    }
}
