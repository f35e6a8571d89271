"""What all clients ask, and the words for what they were answered."""

import json
from dataclasses import dataclass

from pydantic import BaseModel

PROMPT = "Name three colours."
MAX_TOKENS = 16
INPUTS = ["red", "green"]
FILE = ("colours.jsonl", b'{"name": "red"}\n{"name": "green"}\n')
SOUND = ("colours.wav", b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(range(24)) + b"data\x00\x00\x00\x00")
WEATHER = {
    "name": "get_weather",
    "description": "The weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


class Person(BaseModel):
    """Who is meant."""

    name: str
    age: int


@dataclass
class Call:
    scenario: str
    base_url: str
    model: str
    api_key: str = "sk-of-the-client"

    @property
    def headers(self) -> dict:
        """A scenario's records are found by its thread."""
        return {"x-thread-id": self.scenario}

    @property
    def for_openai(self) -> dict:
        """The arguments of `openai.OpenAI`, on which most clients stand."""
        return {
            "base_url": self.base_url,
            "api_key": self.api_key,
            "default_headers": self.headers,
            "max_retries": 0,
            "timeout": 60,
        }


def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def exchange(text=None, tool_calls=(), **more) -> dict:
    """One request and its answer. What a client does not say is left out; see `usage` and `tool_call`."""
    said = {"text": text or None, "tool_calls": list(tool_calls) or None, **more}
    return {key: value for key, value in said.items() if value is not None}


def tool_call(id: str, name: str, arguments) -> dict:
    """`arguments` are JSON's text or what was read from it."""
    read = json.loads(arguments) if isinstance(arguments, str) else arguments
    return {"id": id, "name": name, "arguments": read}


def usage(input, output=None, total=None, cached=None, reasoning=None) -> dict:
    """Token counts as the client says them. Clients make 0 of a detail that they were not told, so that 0 says nothing."""
    counts = {"input": input, "output": output, "total": total, "cached": cached or None, "reasoning": reasoning or None}
    return {key: count for key, count in counts.items() if count is not None}


def only(said: dict, **more) -> dict:
    return {"exchanges": [said], **more}
