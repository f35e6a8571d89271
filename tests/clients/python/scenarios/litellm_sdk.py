"""`litellm`, whose HTTP is aiohttp's or httpx', as it chooses."""

import base64
import os

# Its table of prices is on the internet.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
from openai import OpenAI

from . import FILE, INPUTS, MAX_TOKENS, PROMPT, SOUND, WEATHER, Call, Person, exchange, only, usage
from .openai_sdk import MESSAGES, TOOLS, of_completion, of_response

litellm.telemetry = False
# What it prints would be among the results.
litellm.suppress_debug_info = True


def chat(call: Call) -> dict:
    return only(of_completion(litellm.completion(**asked(call))))


def chat_stream(call: Call) -> dict:
    return streamed(call)


def tools(call: Call) -> dict:
    return only(of_completion(litellm.completion(**asked(call), tools=TOOLS)))


def tools_stream(call: Call) -> dict:
    return streamed(call, tools=TOOLS)


def parse(call: Call) -> dict:
    said = of_completion(litellm.completion(**asked(call), response_format=Person))
    return only(said, parsed=Person.model_validate_json(said["text"]).model_dump())


def responses(call: Call) -> dict:
    return only(of_wrapped(litellm.responses(**to(call), input=PROMPT, max_output_tokens=MAX_TOKENS)))


def responses_stream(call: Call) -> dict:
    events = list(litellm.responses(**to(call), input=PROMPT, max_output_tokens=MAX_TOKENS, stream=True))
    return only(of_wrapped(events[-1].response))


def embeddings(call: Call) -> dict:
    result = litellm.embedding(**to(call), input=INPUTS, encoding_format="float")
    counts = usage(result.usage.prompt_tokens, total=result.usage.total_tokens)
    vectors = [item["embedding"] for item in result.data]
    return only(exchange(model=result.model, usage=counts), vectors=vectors)


def transcription(call: Call) -> dict:
    """With a client, since it sends no headers of its caller's here."""
    return only(exchange(text=litellm.transcription(**to(call), file=SOUND, client=OpenAI(**call.for_openai)).text))


def speech(call: Call) -> dict:
    sound = litellm.speech(**to(call), input=PROMPT, voice="alloy", client=OpenAI(**call.for_openai))
    return only(exchange(), bytes=len(sound.content))


def files(call: Call) -> dict:
    where = {"api_base": call.base_url, "api_key": call.api_key, "extra_headers": call.headers}
    result = litellm.create_file(file=FILE, purpose="batch", custom_llm_provider="openai", **where)
    return only(exchange(id=result.id), file={"name": result.filename, "bytes": result.bytes, "purpose": result.purpose})


def to(call: Call) -> dict:
    return {
        "model": f"openai/{call.model}",
        "api_base": call.base_url,
        "api_key": call.api_key,
        "extra_headers": call.headers,
        "max_retries": 0,
        "timeout": 60,
    }


def asked(call: Call) -> dict:
    return {**to(call), "messages": MESSAGES, "max_tokens": MAX_TOKENS, "temperature": 0}


def streamed(call: Call, **more) -> dict:
    chunks = litellm.completion(**asked(call), stream=True, stream_options={"include_usage": True}, **more)
    said = of_completion(litellm.stream_chunk_builder(list(chunks)))
    # Of a stream it gives the model that was asked.
    del said["model"]
    return only(said)


def of_wrapped(response) -> dict:
    """It puts the response's id and its own words into an id of base64."""
    said = of_response(response)
    words = base64.b64decode(said["id"].removeprefix("resp_")).decode()
    return {**said, "id": words.partition("response_id:")[2]}
