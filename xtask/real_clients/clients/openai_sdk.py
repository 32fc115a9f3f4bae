"""The official Python SDK, of either major version that programs use."""

import json

import openai
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from exercise import *

client = OpenAI(base_url=BASE_URL, api_key="none", max_retries=0, timeout=60)


class Mill(BaseModel):
    name: str
    stones: int


class weather(BaseModel):
    """The weather of a city."""

    city: str


@check
def whole():
    answer = client.chat.completions.create(model=CHAT_MODEL, messages=ask(QUESTION))
    assert answer.choices[0].message.content == ANSWER
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == 6


@check
def streamed():
    stream = client.chat.completions.create(
        model=CHAT_MODEL, messages=ask(QUESTION), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == ANSWER
    assert chunks[-1].usage.completion_tokens == 6 and chunks[-1].choices == []


@check
async def streamed_async():
    async with AsyncOpenAI(base_url=BASE_URL, api_key="none", max_retries=0) as sdk:
        async with sdk.chat.completions.stream(model=CHAT_MODEL, messages=ask(QUESTION)) as stream:
            async for _ in stream:
                pass
            final = await stream.get_final_completion()
    assert final.choices[0].message.content == ANSWER


@check
def tools():
    messages = ask(WEATHER_QUESTION)
    given = [openai.pydantic_function_tool(weather)]
    answer = client.chat.completions.create(model=CHAT_MODEL, messages=messages, tools=given)
    call = answer.choices[0].message.tool_calls[0]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "weather" and json.loads(call.function.arguments) == {"city": "Bern"}
    messages += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": WEATHER}]
    answer = client.chat.completions.create(model=CHAT_MODEL, messages=messages, tools=given)
    assert answer.choices[0].message.content == WEATHER_ANSWER


@check
def tools_streamed():
    given = [openai.pydantic_function_tool(weather)]
    with client.chat.completions.stream(
        model=CHAT_MODEL, messages=ask(WEATHER_QUESTION + " Ask twice."), tools=given
    ) as stream:
        for _ in stream:
            pass
        message = stream.get_final_completion().choices[0].message
    assert [call.function.parsed_arguments.city for call in message.tool_calls] == ["Bern", "Bern"]
    assert len({call.id for call in message.tool_calls}) == 2


@check
def tool_choice():
    given = [openai.pydantic_function_tool(weather)]

    def calls(choice):
        answer = client.chat.completions.create(
            model=CHAT_MODEL, messages=ask(WEATHER_QUESTION), tools=given, tool_choice=choice
        )
        return answer.choices[0].message.tool_calls or []

    assert calls("none") == []
    assert len(calls("required")) == 1
    assert calls({"type": "function", "function": {"name": "weather"}})[0].function.name == "weather"


@check
def structured():
    answer = client.chat.completions.parse(model=CHAT_MODEL, messages=ask("a mill"), response_format=Mill)
    assert answer.choices[0].message.parsed == Mill(**MILL)
    with client.chat.completions.stream(model=CHAT_MODEL, messages=ask("a mill"), response_format=Mill) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.parsed == Mill(**MILL)


@check
def embeddings():
    # Without encoding_format the SDK asks for base64 and decodes it.
    answer = client.embeddings.create(model=EMBEDDING_MODEL, input=["four", "sixsix"])
    assert [item.embedding for item in answer.data] == [[4.0, 0.5], [6.0, 0.5]]
    answer = client.embeddings.create(model=EMBEDDING_MODEL, input="four", encoding_format="float")
    assert answer.data[0].embedding == [4.0, 0.5]


@check
def unknown_model():
    try:
        client.chat.completions.create(model=UNKNOWN_MODEL, messages=ask("hello"))
    except openai.NotFoundError as error:
        assert error.code == "model_not_found" and CHAT_MODEL in error.message, error
        assert error.request_id
    else:
        raise AssertionError("no error")


@check
def no_credits():
    sdk = OpenAI(base_url=POOR_BASE_URL, api_key="none")  # With its own retries: 402 must not be repeated.
    try:
        sdk.chat.completions.create(model=CHAT_MODEL, messages=ask("hello"))
    except openai.APIStatusError as error:
        assert error.status_code == 402 and error.code == "insufficient_credits", error
    else:
        raise AssertionError("no error")


@check
def cancel():
    stream = client.chat.completions.create(model=CHAT_MODEL, messages=ask(ENDLESS), stream=True)
    for index, _ in enumerate(stream):
        if index == 5:
            break
    stopped_reading()
    stream.close()


run()
