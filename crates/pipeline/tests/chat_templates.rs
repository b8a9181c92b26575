//! Chat templates are programs from downloaded files. Whatever they contain, the result is a text or one
//! line.

use std::fs;

use offramp_pipeline::{ChatTemplate, ChatTemplateError, Json, Message, RenderOptions};

fn hello() -> Vec<Message> {
    vec![Message::new("user", "Hello")]
}

fn render(source: &str) -> Result<String, ChatTemplateError> {
    ChatTemplate::from_source("a.jinja", source)?.render(&hello(), &RenderOptions::default())
}

/// The error: one line that names the template.
fn failure(source: &str) -> (ChatTemplateError, String) {
    let shown = source.chars().take(120).collect::<String>();
    let error = render(source).expect_err(&shown);
    let line = error.to_string();
    assert!(line.starts_with("a.jinja") && !line.contains('\n') && line.len() < 800, "{shown}: {line}");
    (error, line)
}

#[test]
fn work_without_an_end_is_ended() {
    for source in [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{% set ns = namespace(s='xxxxxxxx') %}{% for a in range(99) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}",
        "{% set ns = namespace(s=[1]) %}{% for a in range(99) %}{% set ns.s = ns.s + ns.s %}{% endfor %}",
        "{{ 'x' * 99999999999 }}",
        "{{ 'x'.ljust(99999999999) }}",
        "{{ 'x'.center(999999999999999999) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ '{:>999999999}'.format('x') }}",
        "{{ '{:>9999999999999999999999}'.format('x') }}",
        "{{ ('{0}' * 99999).format('x' * 99999) }}",
        "{{ 'a'.join(range(99999) | map('string') | list).replace('', 'b' * 99999) }}",
        "{% set x = range(99999) | list %}{% for a in x %}{{ x | tojson }}{% endfor %}",
        "{% set x = range(99999) | list %}{% for a in x %}{{ x }}{% endfor %}",
        "{% set x = range(9999) | list %}{% set n = namespace() %}{% for a in x %}{% set n.a = x %}{% endfor %}",
        "{{ range(9999) | list | tojson(indent=64, separators=('x' * 9999, ':')) }}",
        "{{ range(99999) | list | tojson(indent='x' * 9999) }}",
        "{% for a in range(99999) recursive %}{{ loop(range(99999)) }}{% endfor %}",
        "{{ 2 ** 999999 }}",
        "{% macro m(n) %}{{ m(n + 1) }}{% endmacro %}{{ m(0) }}",
        "{{ messages[0].content[:1] * 10 ** 12 }}",
        "{{ strftime_now('%A' * 99999) }}",
    ] {
        failure(source);
    }
}

#[test]
fn a_conversation_of_any_length_has_steps_enough() {
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/chat/");
    for (messages, words) in [(4000, 20), (4, 100_000)] {
        let text = "word ".repeat(words);
        let role = |index: usize| if index.is_multiple_of(2) { "user" } else { "assistant" };
        let long = (0..messages).map(|index| Message::new(role(index), &text)).collect::<Vec<_>>();
        for name in ["headers", "brackets_tools", "reasoning", "namespaces"] {
            let source = fs::read_to_string(format!("{fixture}{name}.jinja")).expect("a template");
            let template = ChatTemplate::from_source(name, &source).expect("it compiles");
            let template =
                template.with_special_token("bos_token", "<s>").with_special_token("eos_token", "</s>");
            let rendered = template.render(&long, &RenderOptions::default()).expect("a text");
            assert!(rendered.len() >= messages * words * 5 / 2, "{name}: {}", rendered.len());
        }
    }
}

#[test]
fn no_nesting_exhausts_the_stack() {
    let nested =
        |open: &str, close: &str, times: usize| format!("{}{}", open.repeat(times), close.repeat(times));
    // Nesting in the template's text. These only have to return: a text or an error.
    for source in [
        format!("{{{{ {}1 }}}}", "1 + ".repeat(2000)),
        format!("{{{{ {}1 }}}}", "1 ~ ".repeat(2000)),
        format!("{{{{ {}1 }}}}", "-".repeat(8000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(2000)),
        format!("{{{{ x{} }}}}", ".a".repeat(4000)),
        format!("{{{{ x{} }}}}", "|d".repeat(4000)),
        format!("{{{{ {} }}}}", nested("[", "]", 4000)),
        format!("{{{{ {} }}}}", nested("(", ")", 4000)),
        format!("{{{{ {} }}}}", nested("{1:", "}", 2500)),
        format!("{{{{ {}1 }}}}", "1 if 1 else ".repeat(600)),
        nested("{%if 1%}", "{%endif%}", 9000),
        nested("{%for a in x%}", "{%endfor%}", 9000),
        nested("{%with%}", "{%endwith%}", 9000),
        nested("{%generation%}", "{%endgeneration%}", 7000),
        format!("{{%if a%}}{}{{%endif%}}", "{%elif a%}".repeat(26_000)),
        format!("{}{{{{ a }}}}", "{%set a=[a]%}".repeat(20_000)),
        format!("{}{{{{ a == a }}}}{{{{ a | string }}}}", "{%set a=[a]%}".repeat(19_000)),
        format!("{}{{{{ a ~ a }}}}", "{%set a=[a]%}".repeat(20_000)),
        format!("{}{{{{ a | tojson }}}}", "{%set a={1:a}%}".repeat(17_000)),
        format!("{}{{{{ [a] | join }}}}", "{%set a={1:a}%}".repeat(17_000)),
        format!("{}{{{{ a in a }}}}{{{{ {{a: 1}} }}}}", "{%set a=(a,)%}".repeat(18_000)),
    ] {
        if let Err(error) = render(&source) {
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }
    // Nesting in a value: only a namespace can grow deeper in a loop.
    for source in [
        "{% set ns = namespace(a=1) %}{% for i in range(99999) %}{% set ns.a = [ns.a] %}{% endfor %}",
        "{% set ns = namespace(a=1) %}{% for i in range(99999) %}{%- set ns.a = {'a': ns.a} -%}{% endfor %}",
        "{% set ns = namespace(a=1) %}{% for i in range(99999) %}{% set ns.b, ns.a = 1, (ns.a,) %}{% endfor %}",
        "{% set ns = namespace(a=1) %}{% for i in range(9999) %}{% set ns.a | default([ns.a], true) %}{% endset %}{% endfor %}",
        "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.a = [[ns]] %}{{ ns ~ ns }}",
        "{% set ns = namespace() %}{% set ns.a = 1)|string + (ns %}{{ ns }}",
        "{% set ns, m = namespace(), namespace() %}{% set ns.a = m %}{% set m.a = ns %}{{ [ns] | join }}",
        "{% set ns = namespace() %}{% set ns.a | default(ns, true) %}{% endset %}{{ ns == ns }}",
    ] {
        failure(source);
    }
}

#[test]
fn namespaces_hold_what_templates_put_there() {
    for (source, expected) in [
        (
            "{% set ns = namespace(a=[]) %}{% for i in range(3) %}{% set ns.a = ns.a + [i] %}{% endfor %}{{ ns.a }}",
            "[0, 1, 2]",
        ),
        ("{% set ns = namespace() %}{% set ns.a = 1 if true else 2 %}{{ ns.a }}", "1"),
        ("{% set ns = namespace() %}{% set ns.a = 'x' == 'x' %}{{ ns.a }}", "True"),
        ("{% set ns = namespace() %}{% set ns.a = '=|%}' ~ \"'\" -%}  {{ ns.a }}", "=|%}'"),
        (
            "{% set ns = namespace() %}{% set ns.a = messages | map(attribute='role') %}{{ ns.a | first }}",
            "user",
        ),
        ("{% set ns = namespace() %}{% set ns.a = {'k': {'l': [1]}} %}{{ ns.a.k.l[0] }}", "1"),
        ("{% set ns = namespace() %}{% set ns.a | upper %}b{% endset %}{{ ns.a }}", "B"),
        ("{% set a = 'x.y' | upper %}{{ a }}", "X.Y"),
        ("{% macro m(a, b='a', c={'a': 1}) %}{{ b }}{{ c }}{% endmacro %}{{ m(1) }}", "a{'a': 1}"),
    ] {
        assert_eq!(render(source).expect(source), expected, "{source}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    for (source, words) in [
        ("\n\n{% if %}", "a.jinja, line 3"),
        ("{{ 1 +", "a.jinja, line 1"),
        ("\n{% endfor %}", "a.jinja, line 2"),
        ("\n{{ messages[0].nothing.more }}", "a.jinja, line 2: undefined value"),
        ("{{ raise_exception('only\n users  speak') }}", "refuses this conversation: only users speak"),
        ("{% macro m() %}{{ raise_exception(7) }}{% endmacro %}\n{{ m() }}", "refuses this conversation: 7"),
        ("{{ raise_exception('x' * 9999) }}", "xxx…"),
        ("{{ '%s' % 1 }}", "% operator"),
        ("{% macro m() %}{{ varargs }}{% endmacro %}{{ m(1) }}", "too many arguments"),
        ("\n{% macro m(a, b=[1, a]) %}{% endmacro %}", "line 2: a macro's argument has another one, \"a\""),
        ("{% block a %}{% endblock %}", "a.jinja, line 1"),
        ("{% include 'other' %}", "a.jinja, line 1"),
        ("{% extends 'other' %}", "a.jinja, line 1"),
        ("{{ messages | tojson(sorted=true) }}", "sorted"),
        ("{{ [].append(1) }}", "may not change a list"),
    ] {
        let (_, line) = failure(source);
        assert!(line.contains(words), "{source}: {line}");
    }
    let (error, _) = failure(&format!("{{# {} #}}", "x".repeat(300 << 10)));
    assert!(matches!(error, ChatTemplateError::TooLarge { .. }), "{error}");
}

#[test]
fn what_no_template_can_be_given_is_refused() {
    let template = ChatTemplate::from_source("a.jinja", "{{ messages }}").expect("it compiles");
    let json = |text: &str| Json::parse(text).expect("JSON");
    let options = RenderOptions::default;
    for (messages, options, words) in [
        (vec![], options(), "no message"),
        (hello(), RenderOptions { tools: Some(json("{}")), ..options() }, "tools must be a list"),
        (hello(), RenderOptions { tools: Some(json("[1]")), ..options() }, "tools must be a list"),
        (hello(), RenderOptions { documents: Some(json("\"a\"")), ..options() }, "documents must be a list"),
        (
            hello(),
            RenderOptions { arguments: vec![("messages".to_owned(), Json::from("x"))], ..options() },
            "cannot be called \"messages\"",
        ),
        (
            hello(),
            RenderOptions { continue_final_message: true, add_generation_prompt: true, ..options() },
            "cannot also begin a new answer",
        ),
    ] {
        let line = template.render(&messages, &options).expect_err(words).to_string();
        assert!(line.contains(words) && !line.contains('\n'), "{line}");
    }
    for wrong in ["[]", "\"text\"", "1"] {
        assert!(serde_json::from_str::<Message>(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn files_that_are_none_are_refused_with_their_name() {
    for (file, content, words) in [
        ("tokenizer_config.json", &b"{"[..], "tokenizer_config.json: not JSON"),
        ("tokenizer_config.json", b"[]", "must hold a JSON object"),
        ("tokenizer_config.json", b"{\"chat_template\": 1}", "\"chat_template\" must be a text or a list"),
        (
            "tokenizer_config.json",
            b"{\"chat_template\": [{\"name\": \"default\"}]}",
            "must be a text or a list",
        ),
        (
            "tokenizer_config.json",
            b"{\"chat_template\": \"{% if %}\"}",
            "tokenizer_config.json: chat_template, line 1",
        ),
        ("chat_template.jinja", b"a\n{% for %}", "chat_template.jinja, line 2"),
        ("chat_template.jinja", b"a\xff", "byte 1 is not valid UTF-8"),
        ("chat_template.jinja", &[b'x'; 300 << 10], "larger than"),
        ("special_tokens_map.json", b"nothing", "special_tokens_map.json: not JSON"),
    ] {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join(file), content).expect("a file");
        let line = ChatTemplate::from_folder(folder.path()).expect_err(words).to_string();
        assert!(line.contains(words) && !line.contains('\n'), "{file}: {line}");
    }
    let empty = tempfile::tempdir().expect("a folder");
    assert!(ChatTemplate::from_folder(empty.path()).expect("no fault").is_none());
}
