"""LiteLLM's Python library, which reads answers with its own models."""

import os

# Otherwise it fetches its price list from the network as it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import json

import litellm
from pydantic import BaseModel

from exercise import *

litellm.suppress_debug_info = True
litellm.telemetry = False
COMMON = {"api_base": BASE_URL, "api_key": "none", "max_retries": 0, "num_retries": 0, "timeout": 60}
MODEL = f"openai/{CHAT_MODEL}"
TOOLS = [{
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}]


class Mill(BaseModel):
    name: str
    stones: int


@check
def whole():
    answer = litellm.completion(model=MODEL, messages=ask(QUESTION), **COMMON)
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop" and answer.usage.completion_tokens == 6


@check
def streamed():
    stream = litellm.completion(
        model=MODEL, messages=ask(QUESTION), stream=True, stream_options={"include_usage": True}, **COMMON
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == ANSWER, text
    usages = [chunk.usage for chunk in chunks if getattr(chunk, "usage", None)]
    assert usages[-1].completion_tokens == 6


@check
async def streamed_async():
    stream = await litellm.acompletion(model=MODEL, messages=ask(QUESTION), stream=True, **COMMON)
    text = ""
    async for chunk in stream:
        text += chunk.choices[0].delta.content or ""
    assert text == ANSWER, text


@check
def tools():
    messages = ask(WEATHER_QUESTION)
    answer = litellm.completion(model=MODEL, messages=messages, tools=TOOLS, tool_choice="auto", **COMMON)
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "Bern"}
    messages += [
        answer.choices[0].message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "name": "weather", "content": WEATHER},
    ]
    answer = litellm.completion(model=MODEL, messages=messages, tools=TOOLS, **COMMON)
    assert answer.choices[0].message.content == WEATHER_ANSWER


@check
def tools_streamed():
    stream = litellm.completion(model=MODEL, messages=ask(WEATHER_QUESTION), tools=TOOLS, stream=True, **COMMON)
    whole = litellm.stream_chunk_builder(list(stream))
    call = whole.choices[0].message.tool_calls[0]
    assert json.loads(call.function.arguments) == {"city": "Bern"}


@check
def structured():
    answer = litellm.completion(model=MODEL, messages=ask("a mill"), response_format=Mill, **COMMON)
    assert Mill.model_validate_json(answer.choices[0].message.content) == Mill(**MILL)


@check
def embeddings():
    answer = litellm.embedding(
        model=f"openai/{EMBEDDING_MODEL}", input=["four", "sixsix"], encoding_format="float", **COMMON
    )
    assert [item["embedding"] for item in answer.data] == [[4.0, 0.5], [6.0, 0.5]]


@check
def unknown_model():
    try:
        litellm.completion(model=f"openai/{UNKNOWN_MODEL}", messages=ask("hello"), **COMMON)
    except litellm.NotFoundError as error:
        assert CHAT_MODEL in str(error), error
    else:
        raise AssertionError("no error")


@check
def no_credits():
    try:
        litellm.completion(model=MODEL, messages=ask("hello"), **(COMMON | {"api_base": POOR_BASE_URL}))
    except litellm.exceptions.APIError as error:
        assert error.status_code == 402, error
    except Exception as error:
        assert getattr(error, "status_code", None) == 402, (type(error), error)
    else:
        raise AssertionError("no error")


@check
async def cancel():
    stream = await litellm.acompletion(model=MODEL, messages=ask(ENDLESS), stream=True, **COMMON)
    seen = 0
    async for _ in stream:
        seen += 1
        if seen == 5:
            break
    stopped_reading()
    await stream.aclose()


run()
