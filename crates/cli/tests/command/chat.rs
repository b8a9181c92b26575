//! Conversations: the model's input is what its folder's own template renders, and no token is computed
//! twice.

use crate::place::{Place, Ran};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, Stdio};

const MISTAKE: i32 = 2;

/// A letter for the role, a line for each message.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role[0] }}: {{ m.content }}\n{% endfor %}{% if \
                        add_generation_prompt %}a:{% endif %}";

/// Greedy answers of a few tokens.
const SHORT: [&str; 4] = ["--temperature", "0", "--max-new-tokens", "6"];

/// A model that looks as if it was trained to chat.
fn place() -> Place {
    let place = Place::trained();
    place.write("run/model/chat_template.jinja", TEMPLATE);
    place
}

fn spawn(place: &Place, arguments: &[&str]) -> Child {
    let mut command = place.command(&[&["chat", "run"], arguments].concat());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A conversation whose messages come from a pipe.
fn chat(place: &Place, arguments: &[&str], messages: &str) -> Ran {
    let mut child = spawn(place, arguments);
    child.stdin.take().unwrap().write_all(messages.as_bytes()).unwrap();
    Ran::of(child.wait_with_output().unwrap())
}

/// The answers of a conversation, as JSON.
fn answers(place: &Place, arguments: &[&str], messages: &str) -> Vec<Value> {
    let ran = chat(place, &[&SHORT, arguments, &["--json"]].concat(), messages);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::Deserializer::from_str(&ran.stdout).into_iter().collect::<Result<_, _>>().unwrap()
}

/// The result of `generate` for the same text as a prompt.
fn continued(place: &Place, rendered: &str) -> Value {
    place.json(&[&["generate", "run", "--prompt", rendered][..], &SHORT].concat())
}

#[test]
fn a_folder_without_a_template_is_told_what_to_do() {
    let place = Place::trained();
    let generate = ["generate", "run", "--chat", "--prompt", "Hello"];
    for arguments in [&["chat", "run"][..], &generate] {
        let ran = place.run(arguments);
        ran.assert_error(MISTAKE, &["has no chat template", "offramp generate", "chat_template.jinja"]);
        assert_eq!(ran.stdout, "");
    }
    place.run(&["chat"]).assert_error(MISTAKE, &["has no chat template", "name the folder"]);
    place.good(&["generate", "run"]);
    place.write("run/model/chat_template.jinja", TEMPLATE);
    place.good(&generate);
    place.good(&["chat", "run"]);
    place.write("run/model/chat_template.jinja", "\n{% if %}");
    place.run(&["chat", "run"]).assert_error(MISTAKE, &["chat_template.jinja, line 2"]);
    place.write("run/model/chat_template.jinja", "{{ raise_exception('not to\nyou') }}");
    place.run(&generate).assert_error(MISTAKE, &["refuses this conversation: not to you"]);
}

#[test]
fn a_prompt_is_a_message_where_it_is_to_be_answered() {
    let place = place();
    let asked = [&["generate", "run", "--chat", "--prompt", "The heron"][..], &SHORT].concat();
    for (system, rendered) in
        [(None, "u: The heron\na:"), (Some("- be brief"), "s: - be brief\nu: The heron\na:")]
    {
        let system = system.map_or(vec![], |text| vec!["--system", text]);
        let arguments = [&asked[..], &system].concat();
        let (told, expected) = (place.json(&arguments), continued(&place, rendered));
        for key in ["text", "tokens", "prompt_tokens"] {
            assert_eq!(told[key], expected[key], "{key}");
        }
        assert_eq!(
            place.good(&arguments),
            format!("{}\n", told["text"].as_str().unwrap()),
            "the answer alone"
        );
    }
    let both = place.run(&[&asked[..], &["--plain-text"]].concat());
    assert_eq!((both.code, both.stdout.as_str()), (MISTAKE, ""));
    let alone = place.run(&["generate", "run", "--system", "x"]);
    assert_eq!((alone.code, alone.stdout.as_str()), (MISTAKE, ""));
}

#[test]
fn a_conversation_keeps_what_was_said_and_computed() {
    let place = place();
    let told = answers(&place, &["--system", "S"], "One\n\nTwo\\\nmore\n/reset\nOne\n");
    assert_eq!(told.len(), 3);
    let text = |index: usize| told[index]["text"].as_str().unwrap();
    let first = "s: S\nu: One\na:";
    let second = format!("{first} {}\nu: Two\nmore\na:", text(0));
    for (index, rendered) in [(0, first.to_owned()), (1, second), (2, first.to_owned())] {
        let expected = continued(&place, &rendered);
        assert_eq!(told[index]["text"], expected["text"], "{rendered:?}");
        assert_eq!(told[index]["conversation_tokens"], expected["prompt_tokens"], "{rendered:?}");
    }
    let count = |index: usize, key: &str| told[index][key].as_u64().unwrap();
    assert_eq!(count(0, "prompt_tokens"), count(0, "conversation_tokens"));
    assert!(count(1, "prompt_tokens") + count(0, "conversation_tokens") <= count(1, "conversation_tokens"));
    assert_eq!(count(2, "prompt_tokens"), 1, "all but the last is known");
    for same in [&["--speculate", "2:2"][..], &["--exit-layer", "4"]] {
        let again = answers(&place, &[same, &["--system", "S"]].concat(), "One\nTwo\\\nmore\n/reset\nOne\n");
        assert!(again.iter().zip(&told).all(|(again, told)| again["text"] == told["text"]), "{same:?}");
    }
    let plain = chat(&place, &[&SHORT[..], &["--system", "S"]].concat(), "One\n");
    assert_eq!(plain.stdout, format!("{}\n", text(0)), "the answers alone");
}

#[test]
fn a_script_that_cannot_be_answered_ends_with_one_line() {
    let place = place();
    let long = format!("{}\n", "heron ".repeat(100));
    chat(&place, &SHORT, &long).assert_error(MISTAKE, &["context holds 64", "/reset"]);
    let ran = chat(&place, &SHORT, &format!("One\n{long}"));
    ran.assert_error(MISTAKE, &["context holds 64", "/reset"]);
    assert!(ran.stdout.ends_with('\n'), "the first answer: {:?}", ran.stdout);
    chat(&place, &SHORT, "/dance\n").assert_error(MISTAKE, &["/dance is no command", "space"]);
    let mut child = spawn(&place, &SHORT);
    child.stdin.take().unwrap().write_all(b"caf\xe9\n").unwrap();
    Ran::of(child.wait_with_output().unwrap()).assert_error(MISTAKE, &["stdin", "UTF-8"]);
    let help = chat(&place, &SHORT, "/help\n/quit\nnot read\n");
    assert_eq!((help.code, help.stdout.as_str()), (0, ""));
    assert!(help.stderr.contains("/reset") && help.stderr.contains("Ctrl-C"), "{}", help.stderr);
    for wrong in [&["--temperature", "-1"][..], &["--exit-layer", "9"], &["--stop", ""]] {
        assert_eq!(chat(&place, wrong, "One\n").stdout, "", "{wrong:?}");
        assert_eq!(chat(&place, wrong, "").code, MISTAKE, "{wrong:?}: said before anything is asked");
    }
}

#[cfg(unix)]
#[test]
fn ctrl_c_stops_the_answer_and_then_the_program() {
    use std::os::unix::process::ExitStatusExt;
    let place = Place::new();
    place.recipe("long.toml", "max_position_embeddings = 64", "max_position_embeddings = 60000");
    place.good(&["train", "long.toml", "--out", "run"]);
    let prompt = "u: Tell me\na:";
    let greedy = ["--temperature", "0", "--max-new-tokens", "300"];
    let told = place.json(&[&["generate", "run", "--prompt", prompt][..], &greedy].concat());
    let said = told["tokens"].as_array().unwrap();
    // An end token that never comes.
    let end = (0..300).find(|id| !said.contains(&Value::from(*id))).unwrap();
    let mut config: Value = serde_json::from_slice(&place.read("run/model/config.json")).unwrap();
    config["eos_token_id"] = end.into();
    place.write("run/model/config.json", config.to_string());
    place.write("run/model/generation_config.json", format!("{{\"eos_token_id\": {end}}}"));
    place.write("run/model/tokenizer_config.json", "{}");
    place.write("run/model/chat_template.jinja", TEMPLATE);
    let mut child = spawn(&place, &["--temperature", "0", "--max-new-tokens", "50000"]);
    let interrupt = |child: &Child| {
        let id = child.id().to_string();
        assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    };
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    stdin.write_all(b"Tell me\n").unwrap();
    stdout.read_exact(&mut [0; 8]).unwrap();
    interrupt(&child);
    stderr.read_line(&mut line).unwrap();
    assert_eq!(line, "[stopped]\n");
    stdin.write_all(b"/help\n").unwrap();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains('/'), "it goes on: {line}");
    interrupt(&child);
    assert_eq!(child.wait().unwrap().signal(), Some(2));
}
