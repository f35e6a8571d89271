"""`pydantic-ai`: an agent that answers, calls its tools and answers again."""

import asyncio

from openai import AsyncOpenAI
from pydantic_ai import Agent, Embedder
from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel
from pydantic_ai.messages import ModelResponse, TextPart, ToolCallPart
from pydantic_ai.models.openai import OpenAIChatModel, OpenAIResponsesModel
from pydantic_ai.providers.openai import OpenAIProvider

from . import INPUTS, MAX_TOKENS, PROMPT, Call, Person, exchange, get_weather, only, tool_call, usage

CHAT, RESPONSES = OpenAIChatModel, OpenAIResponsesModel


def chat(call: Call) -> dict:
    return run(call, CHAT)


def chat_stream(call: Call) -> dict:
    return run(call, CHAT, streamed=True)


def tools(call: Call) -> dict:
    return run(call, CHAT, tools=[get_weather])


def tools_stream(call: Call) -> dict:
    return run(call, CHAT, streamed=True, tools=[get_weather])


def parse(call: Call) -> dict:
    """By a call of a tool, which is how it asks for a structure."""
    return run(call, CHAT, output_type=Person)


def responses(call: Call) -> dict:
    return run(call, RESPONSES)


def responses_stream(call: Call) -> dict:
    return run(call, RESPONSES, streamed=True)


def embeddings(call: Call) -> dict:
    async def ran():
        return await Embedder(OpenAIEmbeddingModel(call.model, provider=provider(call))).embed_documents(INPUTS)

    result = asyncio.run(ran())
    said = exchange(model=result.model_name, usage=usage(result.usage.input_tokens))
    return only(said, vectors=[list(vector) for vector in result.embeddings])


def provider(call: Call) -> OpenAIProvider:
    return OpenAIProvider(openai_client=AsyncOpenAI(**call.for_openai))


def run(call: Call, kind, streamed: bool = False, **more) -> dict:
    async def ran():
        settings = {"max_tokens": MAX_TOKENS, "temperature": 0}
        agent = Agent(kind(call.model, provider=provider(call)), model_settings=settings, **more)
        if not streamed:
            result = await agent.run(PROMPT)
            return result.output, result.all_messages()
        async with agent.run_stream(PROMPT) as result:
            return await result.get_output(), result.all_messages()

    output, messages = asyncio.run(ran())
    seen = {"exchanges": [of_response(message) for message in messages if isinstance(message, ModelResponse)]}
    if isinstance(output, Person):
        seen["parsed"] = output.model_dump()
    return seen


def of_response(response: ModelResponse) -> dict:
    counts = response.usage
    return exchange(
        text="".join(part.content for part in response.parts if isinstance(part, TextPart)),
        tool_calls=[
            tool_call(part.tool_call_id, part.tool_name, part.args)
            for part in response.parts
            if isinstance(part, ToolCallPart)
        ],
        finish_reason=(response.provider_details or {}).get("finish_reason"),
        id=response.provider_response_id,
        model=response.model_name,
        usage=usage(counts.input_tokens, counts.output_tokens, counts.total_tokens, counts.cache_read_tokens),
    )
