#!/usr/bin/env python3
"""One call with the unmodified official `openai` SDK; prints one JSON object with what the SDK saw.

    client.py SCENARIO BASE_URL        BASE_URL ends in /v1; the environment's BASE_URL does as well

Scenarios: chat, chat_stream, completions, embeddings, models, responses, responses_stream, error, and cut, which reads
two chunks of a stream and closes it. Settings by environment: MODEL, PROMPT, MAX_TOKENS, API_KEY, EXTRA_HEADERS (a JSON
object), INCLUDE_USAGE=0. The Node client beside this folder takes the same and prints the same keys.

An error of the API is a result, under "error"; the exit code is 0 whenever an object was printed.
"""

import json
import os
import sys

import openai

MODEL = os.environ.get("MODEL", "smollm2")
PROMPT = os.environ.get("PROMPT", "Name three colours.")
MAX_TOKENS = int(os.environ.get("MAX_TOKENS", "16"))
FIXED = {"temperature": 0, "seed": 7}
CHAT = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": MAX_TOKENS, **FIXED}
RESPONSE = {"model": MODEL, "input": PROMPT, "max_output_tokens": MAX_TOKENS, "temperature": 0}
CHUNKS_BEFORE_CUT = 2


def main() -> None:
    if len(sys.argv) < 2 or sys.argv[1] not in SCENARIOS:
        sys.exit(f"usage: client.py {'|'.join(SCENARIOS)} BASE_URL")
    scenario = sys.argv[1]
    base_url = sys.argv[2] if len(sys.argv) > 2 else os.environ["BASE_URL"]
    client = openai.OpenAI(
        base_url=base_url,
        api_key=os.environ.get("API_KEY", "sk-test"),
        default_headers=json.loads(os.environ.get("EXTRA_HEADERS", "{}")),
        max_retries=0,
        timeout=60,
    )
    seen = {"sdk": f"openai-python {openai.__version__}", "scenario": scenario}
    try:
        SCENARIOS[scenario](client, seen)
    except openai.OpenAIError as error:
        seen["error"] = describe_error(error)
    except Exception as error:  # A broken stream surfaces as the HTTP library's own error.
        seen["error"] = {"class": type(error).__name__, "message": str(error)}
    print(json.dumps(seen))


def chat(client: openai.OpenAI, seen: dict) -> None:
    completion = answered(client.chat.completions.with_raw_response.create(**CHAT), seen)
    choice = completion.choices[0]
    saw(seen, completion, text=choice.message.content, finish_reason=choice.finish_reason)


def chat_stream(client: openai.OpenAI, seen: dict, limit: int | None = None) -> None:
    usage = os.environ.get("INCLUDE_USAGE", "1") != "0"
    options = {"stream_options": {"include_usage": True}} if usage else {}
    stream = answered(client.chat.completions.with_raw_response.create(**CHAT, **options, stream=True), seen)
    seen.update(chunks=[], chunk_count=0, text="", finish_reason=None, usage=None)
    for chunk in stream:
        seen["chunks"].append(as_json(chunk))
        seen["chunk_count"] += 1
        seen.update(id=chunk.id, object=chunk.object, model=chunk.model, created=chunk.created)
        seen["usage"] = as_json(chunk.usage) if chunk.usage else seen["usage"]
        for choice in chunk.choices:
            seen["text"] += choice.delta.content or ""
            seen["finish_reason"] = choice.finish_reason or seen["finish_reason"]
        if seen["chunk_count"] == limit:
            stream.close()
            return


def cut(client: openai.OpenAI, seen: dict) -> None:
    chat_stream(client, seen, limit=CHUNKS_BEFORE_CUT)


def completions(client: openai.OpenAI, seen: dict) -> None:
    raw = client.completions.with_raw_response.create(model=MODEL, prompt=PROMPT, max_tokens=MAX_TOKENS, **FIXED)
    completion = answered(raw, seen)
    choice = completion.choices[0]
    saw(seen, completion, text=choice.text, finish_reason=choice.finish_reason)


def embeddings(client: openai.OpenAI, seen: dict) -> None:
    raw = client.embeddings.with_raw_response.create(model=MODEL, input=PROMPT, encoding_format="float")
    result = answered(raw, seen)
    saw(seen, result, vectors=len(result.data), dimensions=len(result.data[0].embedding))


def models(client: openai.OpenAI, seen: dict) -> None:
    page = answered(client.models.with_raw_response.list(), seen)
    seen.update(object=page.object, models=[model.id for model in page.data])


def responses(client: openai.OpenAI, seen: dict) -> None:
    response = answered(client.responses.with_raw_response.create(**RESPONSE), seen)
    saw(seen, response, text=response.output_text, finish_reason=response.status)


def responses_stream(client: openai.OpenAI, seen: dict) -> None:
    stream = answered(client.responses.with_raw_response.create(**RESPONSE, stream=True), seen)
    seen.update(chunks=[], chunk_count=0, text="", finish_reason=None, usage=None)
    for event in stream:
        seen["chunks"].append(as_json(event))
        seen["chunk_count"] += 1
        if event.type == "response.output_text.delta":
            seen["text"] += event.delta
        if event.type in ("response.completed", "response.incomplete", "response.failed"):
            saw(seen, event.response, finish_reason=event.response.status)


def error(client: openai.OpenAI, seen: dict) -> None:
    """Messages that are no list: every server refuses that with a 400."""
    answered(client.chat.completions.with_raw_response.create(**{**CHAT, "messages": "none"}), seen)


def answered(raw, seen: dict):
    """Notes the answer's head, then lets the SDK parse the body."""
    seen.update(status=raw.status_code, headers=dict(raw.headers), request_id=raw.headers.get("x-request-id"))
    return raw.parse()


def saw(seen: dict, answer, **more) -> None:
    for key in ("id", "object", "model", "created"):
        seen[key] = getattr(answer, key, None)
    usage = getattr(answer, "usage", None)
    seen.update(usage=as_json(usage) if usage else None, body=as_json(answer), **more)


def as_json(value) -> dict:
    """Only what was on the wire, and all of it: the SDK keeps fields it does not know."""
    return value.model_dump(mode="json", exclude_unset=True)


def describe_error(error: openai.OpenAIError) -> dict:
    described = {"class": type(error).__name__, "message": str(error)}
    for key in ("type", "code", "param", "body"):
        described[key] = getattr(error, key, None)
    if isinstance(error, openai.APIStatusError):
        headers = dict(error.response.headers)
        described.update(status=error.status_code, headers=headers, request_id=headers.get("x-request-id"))
    return described


SCENARIOS = {
    function.__name__: function
    for function in (chat, chat_stream, completions, embeddings, models, responses, responses_stream, error, cut)
}

if __name__ == "__main__":
    main()
