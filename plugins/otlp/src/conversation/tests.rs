use super::*;

fn read(request: &str, response: &str) -> [Value; 4] {
    let found = Conversation::read(Work::Inference, request.as_bytes(), response.as_bytes());
    [&found.system, &found.tools, &found.input, &found.output]
        .map(|text| text.as_deref().map_or(json!(null), |text| serde_json::from_str(text).unwrap()))
}

fn input(request: &Value) -> Value {
    let [_, _, input, _] = read(&request.to_string(), "");
    input
}

fn output(response: &Value) -> Value {
    let [_, _, _, output] = read("", &response.to_string());
    output
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "content": text })
}

fn said(role: &str, words: &str) -> Value {
    json!({ "role": role, "parts": [text(words)] })
}

fn answered(parts: &Value, reason: &str) -> Value {
    json!([{ "role": "assistant", "parts": parts, "finish_reason": reason }])
}

#[test]
fn chat_completions_have_their_tools() {
    let call =
        json!({ "id": "c1", "type": "function", "function": { "name": "f", "arguments": "{\"x\":1}" } });
    let request = json!({ "messages": [
        { "role": "system", "content": "Be brief" },
        { "role": "user", "name": "Ann", "content": "Hi" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c1", "content": "42" },
        { "role": "assistant", "content": null, "function_call": { "name": "old", "arguments": "{" } },
        { "role": "function", "name": "old", "content": "1" },
    ] });
    let expected = json!([
        said("system", "Be brief"),
        { "role": "user", "name": "Ann", "parts": [text("Hi")] },
        { "role": "assistant", "parts": [{ "type": "tool_call", "id": "c1", "name": "f", "arguments": { "x": 1 } }] },
        { "role": "tool", "parts": [{ "type": "tool_call_response", "id": "c1", "response": "42" }] },
        { "role": "assistant", "parts": [{ "type": "tool_call", "id": null, "name": "old", "arguments": "{" }] },
        { "role": "tool", "name": "old", "parts": [{ "type": "tool_call_response", "id": null, "response": "1" }] },
    ]);
    assert_eq!(input(&request), expected);
}

#[test]
fn every_choice_has_its_parts_and_the_providers_reason() {
    for (choice, parts, reason) in [
        (
            json!({ "message": { "content": "Hello!" }, "finish_reason": "stop" }),
            json!([text("Hello!")]),
            "stop",
        ),
        (
            json!({ "message": { "content": null, "refusal": "No." }, "finish_reason": "content_filter" }),
            json!([text("No.")]),
            "content_filter",
        ),
        (
            json!({ "message": { "reasoning_content": "hm", "content": "A" }, "finish_reason": "stop" }),
            json!([{ "type": "reasoning", "content": "hm" }, text("A")]),
            "stop",
        ),
        (
            json!({ "message": { "content": [
                { "type": "thinking", "thinking": [{ "type": "text", "text": "h" }, { "type": "text", "text": "m" }] },
                { "type": "text", "text": "A" }] }, "finish_reason": "stop" }),
            json!([{ "type": "reasoning", "content": "hm" }, text("A")]),
            "stop",
        ),
        (
            json!({ "message": { "content": null, "audio": { "id": "a", "data": "UklG", "transcript": "Hi" } },
                "finish_reason": "stop" }),
            json!([text("Hi"), { "type": "blob", "modality": "audio", "content": "UklG" }]),
            "stop",
        ),
        (json!({ "text": "c", "finish_reason": "length" }), json!([text("c")]), "length"),
        // A stream that was cut.
        (json!({ "delta": { "content": "Hel" } }), json!([text("Hel")]), "error"),
        (json!({ "delta": { "content": "Hel" }, "finish_reason": null }), json!([text("Hel")]), "error"),
    ] {
        assert_eq!(output(&json!({ "choices": [choice] })), answered(&parts, reason), "{choice}");
    }
    let two = json!({ "choices": [{ "text": "a", "finish_reason": "stop" }, { "text": "b", "finish_reason": "stop" }] });
    assert_eq!(output(&two).as_array().unwrap().len(), 2);
}

#[test]
fn images_sound_and_files_are_parts_with_their_modality() {
    for (block, expected) in [
        (
            json!({ "type": "image_url", "image_url": { "url": "https://e.com/a.png" } }),
            json!({ "type": "uri", "modality": "image", "uri": "https://e.com/a.png" }),
        ),
        (
            json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,iVBO" } }),
            json!({ "type": "blob", "modality": "image", "mime_type": "image/png", "content": "iVBO" }),
        ),
        (
            json!({ "type": "input_image", "image_url": "https://e.com/a.png" }),
            json!({ "type": "uri", "modality": "image", "uri": "https://e.com/a.png" }),
        ),
        (
            json!({ "type": "input_image", "file_id": "file-1" }),
            json!({ "type": "file", "modality": "image", "file_id": "file-1" }),
        ),
        (
            json!({ "type": "input_audio", "input_audio": { "data": "UklG", "format": "wav" } }),
            json!({ "type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": "UklG" }),
        ),
        (
            json!({ "type": "file", "file": { "file_id": "file-2" } }),
            json!({ "type": "file", "modality": "document", "file_id": "file-2" }),
        ),
        (
            json!({ "type": "input_file", "file_data": "data:application/pdf;base64,JVBE", "filename": "a.pdf" }),
            json!({ "type": "blob", "modality": "document", "mime_type": "application/pdf", "content": "JVBE" }),
        ),
        (
            json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": "iVBO" } }),
            json!({ "type": "blob", "modality": "image", "mime_type": "image/png", "content": "iVBO" }),
        ),
        (
            json!({ "type": "document", "source": { "type": "url", "url": "https://e.com/a.pdf" } }),
            json!({ "type": "uri", "modality": "document", "uri": "https://e.com/a.pdf" }),
        ),
        (json!({ "type": "novelty", "x": 1 }), json!({ "type": "novelty", "x": 1 })),
        (json!({ "x": 1 }), json!({ "type": "generic", "content": { "x": 1 } })),
    ] {
        let found = input(&json!({ "messages": [{ "role": "user", "content": [block] }] }));
        assert_eq!(found[0]["parts"][0], expected, "{block}");
    }
    let made = json!({ "data": [{ "b64_json": "iVBO" }, { "url": "https://e.com/b" }] });
    let found = output(&made);
    assert_eq!(found[0]["parts"], json!([{ "type": "blob", "modality": "image", "content": "iVBO" }]));
    assert_eq!(found[1]["parts"], json!([{ "type": "uri", "modality": "image", "uri": "https://e.com/b" }]));
}

#[test]
fn messages_have_thinking_tools_and_tools_of_the_server() {
    let request = json!({ "system": [{ "type": "text", "text": "Be kind" }], "messages": [
        { "role": "user", "content": "Hi" },
        { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t", "content": "42" }] },
    ] });
    let response = json!({ "role": "assistant", "stop_reason": "tool_use", "content": [
        { "type": "thinking", "thinking": "hm" },
        { "type": "server_tool_use", "id": "s", "name": "web_search", "input": { "query": "q" } },
        { "type": "web_search_tool_result", "tool_use_id": "s", "content": [] },
        { "type": "tool_use", "id": "t", "name": "f", "input": {} },
    ] });
    let [system, _, input, output] = read(&request.to_string(), &response.to_string());
    assert_eq!(system, json!([text("Be kind")]));
    assert_eq!(
        input,
        json!([
            said("user", "Hi"),
            { "role": "tool", "parts": [{ "type": "tool_call_response", "id": "t", "response": "42" }] },
        ])
    );
    assert_eq!(
        output,
        answered(
            &json!([
                { "type": "reasoning", "content": "hm" },
                { "type": "server_tool_call", "id": "s", "name": "web_search",
                    "server_tool_call": { "type": "web_search", "query": "q" } },
                { "type": "server_tool_call_response", "id": "s", "server_tool_call_response":
                    { "type": "web_search_tool_result", "tool_use_id": "s", "content": [] } },
                { "type": "tool_call", "id": "t", "name": "f", "arguments": {} },
            ]),
            "tool_use"
        )
    );
}

#[test]
fn responses_are_one_answer_of_several_items() {
    let request = json!({ "instructions": "Be kind", "input": [
        { "role": "user", "content": [{ "type": "input_text", "text": "Hi" }] },
        { "type": "function_call", "call_id": "c", "name": "f", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "c", "output": "1" },
        { "type": "reasoning", "summary": [{ "type": "summary_text", "text": "so" }] },
    ] });
    let search = json!({ "type": "web_search_call", "id": "ws", "status": "completed" });
    let response = json!({ "status": "completed", "output": [
        { "type": "reasoning", "summary": [], "content": [{ "type": "reasoning_text", "text": "hm" }] },
        search,
        { "type": "message", "role": "assistant", "content": [
            { "type": "output_text", "text": "Hello" }, { "type": "refusal", "refusal": "No." }] },
        { "type": "function_call", "call_id": "d", "name": "g", "arguments": "{\"y\":2}" },
    ] });
    let [system, _, input, output] = read(&request.to_string(), &response.to_string());
    assert_eq!(system, json!([text("Be kind")]));
    assert_eq!(
        input,
        json!([
            said("user", "Hi"),
            { "role": "assistant", "parts": [{ "type": "tool_call", "id": "c", "name": "f", "arguments": {} }] },
            { "role": "tool", "parts": [{ "type": "tool_call_response", "id": "c", "response": "1" }] },
            { "role": "assistant", "parts": [{ "type": "reasoning", "content": "so" }] },
        ])
    );
    assert_eq!(
        output,
        answered(
            &json!([
                { "type": "reasoning", "content": "hm" },
                { "type": "server_tool_call", "id": "ws", "name": "web_search", "server_tool_call": search },
                text("Hello"),
                text("No."),
                { "type": "tool_call", "id": "d", "name": "g", "arguments": { "y": 2 } },
            ]),
            "completed"
        )
    );
    let cut = json!({ "status": "incomplete", "incomplete_details": { "reason": "max_output_tokens" }, "output": [] });
    assert_eq!(self::output(&cut)[0]["finish_reason"], "max_output_tokens");
}

#[test]
fn prompts_are_messages_of_the_user() {
    for request in [json!({ "prompt": ["a", "b"] }), json!({ "input": ["a", "b"] })] {
        assert_eq!(input(&request), json!([said("user", "a"), said("user", "b")]), "{request}");
    }
    assert_eq!(input(&json!({ "input": "a" })), json!([said("user", "a")]));
}

#[test]
fn tools_are_defined_alike_for_all_apis() {
    let expected =
        json!([{ "type": "function", "name": "f", "description": "d", "parameters": { "type": "object" } }]);
    let (name, description, schema) = ("f", "d", json!({ "type": "object" }));
    for tool in [
        json!({ "type": "function", "function": { "name": name, "description": description, "parameters": schema } }),
        json!({ "type": "function", "name": name, "description": description, "parameters": schema }),
        json!({ "name": name, "description": description, "input_schema": schema }),
    ] {
        let [_, tools, _, _] = read(&json!({ "tools": [tool] }).to_string(), "");
        assert_eq!(tools, expected, "{tool}");
    }
    let [_, tools, _, _] = read(&json!({ "tools": [{ "type": "web_search" }, 7] }).to_string(), "");
    assert_eq!(tools, json!([{ "type": "web_search", "name": "web_search" }]));
}

#[test]
fn what_is_embedded_is_no_message() {
    let request = br#"{"input":["a","b"]}"#;
    let answer = br#"{"data":[{"embedding":[0.5]}]}"#;
    let found = Conversation::read(Work::Embeddings, request, answer);
    assert_eq!(found.attributes().collect::<Vec<_>>(), [(names::EMBEDDED, r#"["a","b"]"#)]);
    let tokens = Conversation::read(Work::Embeddings, br#"{"input":[[1,2],[3]]}"#, answer);
    assert_eq!(tokens, Conversation::default());
}

#[test]
fn what_was_made_before_is_not_said_again() {
    let response = br#"{"status":"completed","output":[]}"#;
    assert_eq!(Conversation::read(Work::None, b"", response), Conversation::default());
}

#[test]
fn one_bad_part_costs_that_part_alone() {
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    let request = format!(
        r#"{{"messages":[{{"role":"user","content":"a\ud800b"}},{{"role":"user","content":"B"}},
            {{"role":"assistant","content":null,"tool_calls":[{{"id":"c","function":{{"name":"f","arguments":{deep}}}}}]}}]}}"#
    );
    let [_, _, input, output] =
        read(&request, r#"{"choices":[{"message":{"content":"\udc00"},"finish_reason":"stop"}]}"#);
    assert_eq!(input[0], said("user", "a\u{fffd}b"));
    assert_eq!(input[1], said("user", "B"));
    assert_eq!(input[2]["parts"][0]["name"], "f");
    assert_eq!(output, answered(&json!([text("\u{fffd}")]), "stop"));
}

#[test]
fn what_has_no_shape_has_no_conversation() {
    for text in ["", "null", "[]", "7", r#"{"messages":7,"input":{},"choices":{}}"#] {
        let found = Conversation::read(Work::Inference, text.as_bytes(), text.as_bytes());
        assert_eq!(found, Conversation::default(), "{text}");
    }
}
