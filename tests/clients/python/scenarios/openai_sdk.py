"""`openai` itself; chat, streams and errors on the level of HTTP are in ../client.py."""

from openai import OpenAI

from . import FILE, INPUTS, MAX_TOKENS, PROMPT, SOUND, WEATHER, Call, Person, exchange, only, tool_call, usage

MESSAGES = [{"role": "user", "content": PROMPT}]
TOOLS = [{"type": "function", "function": {**WEATHER, "strict": True}}]


def chat(call: Call) -> dict:
    completion = OpenAI(**call.for_openai).chat.completions.create(**asked(call))
    return only(of_completion(completion))


def chat_stream(call: Call) -> dict:
    return streamed(call)


def tools(call: Call) -> dict:
    return only(of_completion(OpenAI(**call.for_openai).chat.completions.create(**asked(call), tools=TOOLS)))


def tools_stream(call: Call) -> dict:
    return streamed(call, tools=TOOLS)


def parse(call: Call) -> dict:
    completion = OpenAI(**call.for_openai).chat.completions.parse(**asked(call), response_format=Person)
    return only(of_completion(completion), parsed=completion.choices[0].message.parsed.model_dump())


def responses(call: Call) -> dict:
    response = OpenAI(**call.for_openai).responses.create(model=call.model, input=PROMPT, max_output_tokens=MAX_TOKENS)
    return only(of_response(response))


def responses_stream(call: Call) -> dict:
    with OpenAI(**call.for_openai).responses.stream(model=call.model, input=PROMPT, max_output_tokens=MAX_TOKENS) as stream:
        return only(of_response(stream.get_final_response()))


def embeddings(call: Call) -> dict:
    result = OpenAI(**call.for_openai).embeddings.create(model=call.model, input=INPUTS)
    vectors = [item.embedding for item in result.data]
    counts = usage(result.usage.prompt_tokens, total=result.usage.total_tokens)
    return only(exchange(model=result.model, usage=counts), vectors=vectors)


def transcription(call: Call) -> dict:
    result = OpenAI(**call.for_openai).audio.transcriptions.create(model=call.model, file=SOUND)
    counts = usage(result.usage.input_tokens, result.usage.output_tokens, result.usage.total_tokens)
    return only(exchange(text=result.text, usage=counts))


def speech(call: Call) -> dict:
    result = OpenAI(**call.for_openai).audio.speech.create(model=call.model, input=PROMPT, voice="alloy")
    return only(exchange(), bytes=len(result.content))


def files(call: Call) -> dict:
    result = OpenAI(**call.for_openai).files.create(file=FILE, purpose="batch")
    return only(exchange(id=result.id), file={"name": result.filename, "bytes": result.bytes, "purpose": result.purpose})


def asked(call: Call) -> dict:
    return {"model": call.model, "messages": MESSAGES, "max_tokens": MAX_TOKENS, "temperature": 0}


def streamed(call: Call, **more) -> dict:
    """By the SDK's own assembly of a stream; what it calls final it refuses when the answer is cut at `max_tokens`."""
    completions = OpenAI(**call.for_openai).chat.completions
    with completions.stream(**asked(call), stream_options={"include_usage": True}, **more) as stream:
        stream.until_done()
        return only(of_completion(stream.current_completion_snapshot))


def of_completion(completion) -> dict:
    choice = completion.choices[0]
    return exchange(
        text=choice.message.content,
        tool_calls=[tool_call(c.id, c.function.name, c.function.arguments) for c in choice.message.tool_calls or ()],
        finish_reason=choice.finish_reason,
        id=completion.id,
        model=completion.model,
        usage=of_usage(completion.usage),
    )


def of_usage(counts) -> dict:
    """Some providers leave the details out."""
    cached = getattr(counts.prompt_tokens_details, "cached_tokens", None)
    reasoning = getattr(counts.completion_tokens_details, "reasoning_tokens", None)
    return usage(counts.prompt_tokens, counts.completion_tokens, counts.total_tokens, cached, reasoning)


def of_response(response) -> dict:
    counts = response.usage
    return exchange(
        text=response.output_text,
        finish_reason=response.status,
        id=response.id,
        model=response.model,
        usage=usage(counts.input_tokens, counts.output_tokens, counts.total_tokens),
    )
