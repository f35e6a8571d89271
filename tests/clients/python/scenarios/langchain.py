"""`langchain-openai`."""

from functools import reduce
from operator import add

from langchain_openai import ChatOpenAI, OpenAIEmbeddings

from . import INPUTS, MAX_TOKENS, PROMPT, WEATHER, Call, Person, exchange, only, tool_call, usage

TOOLS = [{"type": "function", "function": WEATHER}]


def chat(call: Call) -> dict:
    return only(of_message(model(call).invoke(PROMPT)))


def chat_stream(call: Call) -> dict:
    return only(of_message(whole(model(call))))


def tools(call: Call) -> dict:
    return only(of_message(model(call).bind_tools(TOOLS).invoke(PROMPT)))


def tools_stream(call: Call) -> dict:
    return only(of_message(whole(model(call).bind_tools(TOOLS))))


def parse(call: Call) -> dict:
    result = model(call).with_structured_output(Person, include_raw=True).invoke(PROMPT)
    return only(of_message(result["raw"]), parsed=result["parsed"].model_dump())


def responses(call: Call) -> dict:
    return only(of_message(model(call, use_responses_api=True).invoke(PROMPT)))


def responses_stream(call: Call) -> dict:
    return only(of_message(whole(model(call, use_responses_api=True))))


def embeddings(call: Call) -> dict:
    """Without the check of lengths, which fetches a tokenizer from the internet."""
    client = OpenAIEmbeddings(model=call.model, check_embedding_ctx_length=False, **call.for_openai)
    return only(exchange(), vectors=client.embed_documents(INPUTS))


def model(call: Call, **more) -> ChatOpenAI:
    return ChatOpenAI(model=call.model, max_tokens=MAX_TOKENS, temperature=0, stream_usage=True, **call.for_openai, **more)


def whole(asked):
    return reduce(add, asked.stream(PROMPT))


def of_message(message) -> dict:
    said, counts = message.response_metadata, message.usage_metadata
    return exchange(
        text=message.text,
        tool_calls=[tool_call(c["id"], c["name"], c["args"]) for c in message.tool_calls],
        finish_reason=said.get("finish_reason") or said.get("status"),
        id=said.get("id"),
        model=said.get("model_name"),
        usage=usage(
            counts["input_tokens"],
            counts["output_tokens"],
            counts["total_tokens"],
            counts.get("input_token_details", {}).get("cache_read"),
            counts.get("output_token_details", {}).get("reasoning"),
        ),
    )
