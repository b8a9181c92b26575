//! Chats and responses: the template's prompt, formats that must hold, calls of tools.

use offramp_pipeline::ChatTemplate;
use offramp_tests::http::post;
use offramp_tests::server::{Server, options};
use serde_json::{Value, json};

const TEMPLATE: &str = "{% for message in messages %}<{{ message.role }}> {{ message.content }}\n{% endfor %}\
    {% if tools %}<tools> {{ tools | tojson }} <tool_call>\n{% endif %}{% if add_generation_prompt %}<assistant> {% endif %}";

/// A server whose model has a chat template.
pub(crate) fn chat_server() -> Server {
    Server::start(Some(ChatTemplate::from_source("test", TEMPLATE).unwrap()), options())
}

fn text(reply: &Value) -> &str {
    reply["choices"][0]["message"]["content"].as_str().unwrap()
}

#[test]
fn a_chat_is_a_completion_of_what_the_template_renders() {
    let server = chat_server();
    let messages = json!([{ "role": "system", "content": "Be kind." }, { "role": "user", "content": [
        { "type": "text", "text": "Tell me" }, { "type": "text", "text": "a story." }] }]);
    let chat = json!({ "messages": messages, "temperature": 0, "max_tokens": 30, "seed": 1 });
    let chat = post(server.address, "/v1/chat/completions", &chat).json();
    let prompt = "<system> Be kind.\n<user> Tell me\na story.\n<assistant> ";
    let same = json!({ "prompt": prompt, "temperature": 0, "max_tokens": 30, "add_special_tokens": false });
    let same = post(server.address, "/v1/completions", &same).json();
    assert_eq!(same["choices"][0]["text"], text(&chat));
    assert_eq!(same["usage"]["prompt_tokens"], chat["usage"]["prompt_tokens"]);
    let tokens = post(server.address, "/tokenize", &json!({ "messages": messages })).json();
    assert_eq!(tokens["count"], chat["usage"]["prompt_tokens"]);
    let response = json!({ "instructions": "Be kind.", "input": [{ "role": "user", "content": [
        { "type": "input_text", "text": "Tell me\na story." }] }], "temperature": 0, "max_output_tokens": 30 });
    let response = post(server.address, "/v1/responses", &response).json();
    assert_eq!(response["output"][0]["content"][0]["text"], text(&chat));
}

#[test]
fn streamed_chats_and_responses_are_the_whole_ones() {
    let server = chat_server();
    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }], "temperature": 0.9, "seed": 4, "n": 2,
        "max_tokens": 40, "stop": ["went"] });
    let whole = post(server.address, "/v1/chat/completions", &body).json();
    let mut streaming = body;
    streaming["stream"] = json!(true);
    let mut texts = vec![String::new(); 2];
    for chunk in post(server.address, "/v1/chat/completions", &streaming).chunks() {
        let choice = &chunk["choices"][0];
        let index = choice["index"].as_u64().unwrap() as usize;
        texts[index].push_str(choice["delta"]["content"].as_str().unwrap_or_default());
    }
    for (index, text) in texts.iter().enumerate() {
        assert_eq!(whole["choices"][index]["message"]["content"].as_str().unwrap(), text);
    }
    let body = json!({ "input": "Hi", "temperature": 0.9, "seed": 4, "max_output_tokens": 40 });
    let whole = post(server.address, "/v1/responses", &body).json();
    let mut streaming = body;
    streaming["stream"] = json!(true);
    let events = post(server.address, "/v1/responses", &streaming).events();
    let deltas: String = events
        .iter()
        .filter(|(name, _)| name.as_deref() == Some("response.output_text.delta"))
        .map(|(_, data)| serde_json::from_str::<Value>(data).unwrap()["delta"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(whole["output"][0]["content"][0]["text"], deltas.as_str());
    assert_eq!(
        (whole["status"].as_str(), whole["incomplete_details"]["reason"].as_str()),
        (Some("incomplete"), Some("max_output_tokens"))
    );
}

#[test]
fn an_answer_follows_its_schema_whatever_speculation_does() {
    let server = chat_server();
    let schema = json!({ "type": "object", "properties": { "name": { "$ref": "#/$defs/name" },
        "age": { "type": "integer", "minimum": 0, "maximum": 99 }, "kind": { "enum": ["cat", "dog"] } },
        "$defs": { "name": { "type": "string", "maxLength": 12 } },
        "required": ["name", "age", "kind"], "additionalProperties": false });
    for seed in 0..6 {
        let ask = |speculate: &str| {
            let body = json!({ "messages": [{ "role": "user", "content": "Describe a pet." }], "temperature": 1.0,
                "seed": seed, "max_tokens": 120, "speculate": speculate, "response_format": {
                "type": "json_schema", "json_schema": { "name": "pet", "schema": schema } } });
            post(server.address, "/v1/chat/completions", &body).json()
        };
        let reply = ask("off");
        assert_eq!(reply["choices"][0]["finish_reason"], "stop", "{reply}");
        let found: Value =
            serde_json::from_str(text(&reply)).unwrap_or_else(|error| panic!("{error}: {reply}"));
        assert!(found["name"].as_str().unwrap().chars().count() <= 12);
        assert!((0..=99).contains(&found["age"].as_i64().unwrap()));
        assert!(["cat", "dog"].contains(&found["kind"].as_str().unwrap()));
        assert_eq!(text(&ask("6:4")), text(&reply));
    }
    let any = json!({ "prompt": "A pet: ", "temperature": 1.0, "seed": 3, "max_tokens": 200,
        "response_format": { "type": "json_object" } });
    let reply = post(server.address, "/v1/completions", &any).json();
    if reply["choices"][0]["finish_reason"] == "stop" {
        assert!(
            serde_json::from_str::<Value>(reply["choices"][0]["text"].as_str().unwrap()).unwrap().is_object()
        );
    }
    let endless = json!({ "prompt": "a", "ignore_eos": true, "response_format": { "type": "json_object" } });
    assert!(post(server.address, "/v1/completions", &endless).error().contains("has to end"));
}

#[test]
fn a_call_of_a_tool_is_read_back() {
    let server = chat_server();
    // The schema makes the model write the call, whatever it would have said.
    let schema = json!({ "type": "object", "properties": { "name": { "const": "weather" }, "arguments": {
        "type": "object", "properties": { "city": { "enum": ["Oslo"] } }, "required": ["city"],
        "additionalProperties": false } }, "required": ["name", "arguments"], "additionalProperties": false });
    let tools = json!([{ "type": "function", "function": { "name": "weather", "parameters": {} } }]);
    let template = TEMPLATE.replace("<tool_call>", "<|python_tag|>");
    let llama = Server::start(Some(ChatTemplate::from_source("llama", &template).unwrap()), options());
    let body = json!({ "messages": [{ "role": "user", "content": "How is it in Oslo?" }], "tools": tools,
        "max_tokens": 100, "response_format": { "type": "json_schema", "json_schema": { "schema": schema } } });
    let choice = post(llama.address, "/v1/chat/completions", &body).json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["message"]["content"], Value::Null);
    let function = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!(function["name"], "weather");
    let arguments: Value = serde_json::from_str(function["arguments"].as_str().unwrap()).unwrap();
    assert_eq!(arguments, json!({ "city": "Oslo" }));
    let mut streaming = body.clone();
    streaming["stream"] = json!(true);
    let chunks = post(llama.address, "/v1/chat/completions", &streaming).chunks();
    let calls: Vec<&Value> =
        chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]["tool_calls"][0]).collect();
    assert_eq!(calls.iter().filter(|call| call["function"]["name"] == "weather").count(), 1);
    assert!(
        chunks
            .iter()
            .all(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default().is_empty())
    );
    let plain = post(server.address, "/v1/chat/completions", &body).json();
    assert!(plain["choices"][0]["message"]["content"].is_string(), "no <tool_call> was written: {plain}");
    let forced = json!({ "messages": [{ "role": "user", "content": "Hi" }], "tools": tools, "tool_choice": "required" });
    assert!(post(server.address, "/v1/chat/completions", &forced).error().contains("tool_choice"));
}

#[test]
fn what_a_chat_cannot_do_is_said() {
    let server = chat_server();
    let image =
        json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }] });
    for (path, body, says) in [
        ("/v1/chat/completions", image, "image_url"),
        ("/v1/chat/completions", json!({ "messages": [] }), "message"),
        ("/v1/chat/completions", json!({ "messages": ["hi"] }), "role"),
        (
            "/v1/chat/completions",
            json!({ "messages": [{ "role": "user", "content": "a" }], "top_logprobs": 2 }),
            "logprobs",
        ),
        ("/v1/responses", json!({ "input": "a", "previous_response_id": "resp_1" }), "keeps nothing"),
        ("/v1/responses", json!({ "input": "a", "store": true }), "keeps nothing"),
        ("/v1/responses", json!({ "input": 3 }), "neither a text nor a list"),
        ("/v1/responses", json!({ "input": [{ "type": "item_reference" }] }), "item_reference"),
    ] {
        let reply = post(server.address, path, &body);
        assert_eq!(reply.status, 400, "{body}");
        assert!(reply.error().contains(says), "{body}: {}", reply.error());
    }
    let plain = Server::start(None, options());
    let body = json!({ "messages": [{ "role": "user", "content": "Hi" }] });
    let reply = post(plain.address, "/v1/chat/completions", &body);
    assert_eq!((reply.status, reply.json()["error"]["code"].as_str()), (400, Some("no_chat_template")));
    assert!(reply.error().contains("/v1/completions"));
}
