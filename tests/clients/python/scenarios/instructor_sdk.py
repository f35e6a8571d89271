"""`instructor`, which has answers in the form of a class only."""

import instructor
from openai import OpenAI

from . import Call, Person, exchange, only
from .openai_sdk import asked, of_completion


def parse(call: Call) -> dict:
    return parsed(call, instructor.Mode.TOOLS)


def parse_by_schema(call: Call) -> dict:
    return parsed(call, instructor.Mode.JSON_SCHEMA)


def parse_stream(call: Call) -> dict:
    *_, last = client(call, instructor.Mode.TOOLS).create_partial(response_model=Person, **asked(call))
    return only(exchange(), parsed=last.model_dump())


def client(call: Call, mode):
    return instructor.from_openai(OpenAI(**call.for_openai), mode=mode)


def parsed(call: Call, mode) -> dict:
    person, completion = client(call, mode).create_with_completion(response_model=Person, max_retries=0, **asked(call))
    return only(of_completion(completion), parsed=person.model_dump())
