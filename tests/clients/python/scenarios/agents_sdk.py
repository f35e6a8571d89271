"""`openai-agents`: an agent that answers, calls its tools and answers again."""

import asyncio

from agents import Agent, ModelSettings, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from agents import set_tracing_disabled
from agents.models.fake_id import FAKE_RESPONSES_ID
from openai import AsyncOpenAI

from . import MAX_TOKENS, PROMPT, Call, Person, exchange, get_weather, tool_call, usage

set_tracing_disabled(True)
CHAT, RESPONSES = OpenAIChatCompletionsModel, OpenAIResponsesModel


def chat(call: Call) -> dict:
    return run(call, CHAT)


def chat_stream(call: Call) -> dict:
    return run(call, CHAT, streamed=True)


def tools(call: Call) -> dict:
    return run(call, CHAT, tools=[function_tool(get_weather)])


def tools_stream(call: Call) -> dict:
    return run(call, CHAT, streamed=True, tools=[function_tool(get_weather)])


def parse(call: Call) -> dict:
    return run(call, CHAT, output_type=Person)


def responses(call: Call) -> dict:
    return run(call, RESPONSES)


def responses_stream(call: Call) -> dict:
    return run(call, RESPONSES, streamed=True)


def responses_tools(call: Call) -> dict:
    return run(call, RESPONSES, tools=[function_tool(get_weather)])


def run(call: Call, kind, streamed: bool = False, **more) -> dict:
    settings = ModelSettings(max_tokens=MAX_TOKENS, temperature=0, include_usage=True)

    async def ran():
        model = kind(model=call.model, openai_client=AsyncOpenAI(**call.for_openai))
        agent = Agent(name="painter", model=model, model_settings=settings, **more)
        if not streamed:
            return await Runner.run(agent, PROMPT)
        result = Runner.run_streamed(agent, PROMPT)
        async for _ in result.stream_events():
            pass
        return result

    result = asyncio.run(ran())
    seen = {"exchanges": [of_response(response) for response in result.raw_responses]}
    if isinstance(result.final_output, Person):
        seen["parsed"] = result.final_output.model_dump()
    return seen


def of_response(response) -> dict:
    messages = [item for item in response.output if item.type == "message"]
    calls = [item for item in response.output if item.type == "function_call"]
    counts = response.usage
    return exchange(
        text="".join(part.text for message in messages for part in message.content),
        tool_calls=[tool_call(item.call_id, item.name, item.arguments) for item in calls],
        id=None if response.response_id == FAKE_RESPONSES_ID else response.response_id,
        usage=usage(
            counts.input_tokens,
            counts.output_tokens,
            counts.total_tokens,
            counts.input_tokens_details.cached_tokens,
            counts.output_tokens_details.reasoning_tokens,
        ),
    )
