"""Instructor: structured answers in each of its modes that send something else."""

from typing import Iterable

import instructor
import openai
from openai import OpenAI
from pydantic import BaseModel

from exercise import *


class Mill(BaseModel):
    """A mill."""

    name: str
    stones: int


class weather(BaseModel):
    """The weather of a city."""

    city: str


def client(mode=instructor.Mode.TOOLS, base_url=BASE_URL):
    return instructor.from_openai(OpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60), mode=mode)


@check
def whole():
    mill, answer = client().create_with_completion(
        model=CHAT_MODEL, messages=ask("a mill"), response_model=Mill, max_retries=0
    )
    assert mill.model_dump() == MILL and answer.usage.completion_tokens > 0


@check
def structured():
    modes = ("TOOLS", "TOOLS_STRICT", "JSON", "JSON_SCHEMA", "MD_JSON")
    for mode in modes:
        if not hasattr(instructor.Mode, mode):
            continue
        mill = client(getattr(instructor.Mode, mode)).create(
            model=CHAT_MODEL, messages=ask("a mill"), response_model=Mill, max_retries=0
        )
        assert mill.model_dump() == MILL, mode


@check
def streamed():
    parts = list(
        client().create_partial(model=CHAT_MODEL, messages=ask("a mill"), response_model=Mill, max_retries=0)
    )
    assert len(parts) > 2 and parts[-1].model_dump() == MILL


@check
def tools():
    calls = client(instructor.Mode.PARALLEL_TOOLS).create(
        model=CHAT_MODEL,
        messages=ask(WEATHER_QUESTION + " Ask twice."),
        response_model=Iterable[weather],
        tool_choice="auto",
        max_retries=0,
    )
    assert [call.city for call in calls] == ["Bern", "Bern"]


def cause(error):
    while error is not None:
        if isinstance(error, openai.APIStatusError):
            return error
        error = error.__cause__ or error.__context__
    raise AssertionError("no error of the API among the causes")


@check
def unknown_model():
    try:
        client().create(model=UNKNOWN_MODEL, messages=ask("hello"), response_model=Mill, max_retries=0)
    except Exception as error:
        assert cause(error).status_code == 404 and cause(error).code == "model_not_found"
    else:
        raise AssertionError("no error")


@check
def no_credits():
    try:
        client(base_url=POOR_BASE_URL).create(
            model=CHAT_MODEL, messages=ask("hello"), response_model=Mill, max_retries=0
        )
    except Exception as error:
        assert cause(error).status_code == 402 and cause(error).code == "insufficient_credits"
    else:
        raise AssertionError("no error")


@check
def cancel():
    stream = client().chat.completions.create(
        model=CHAT_MODEL, messages=ask(ENDLESS), response_model=None, stream=True
    )
    for index, _ in enumerate(stream):
        if index == 5:
            break
    stopped_reading()
    stream.close()


run()
