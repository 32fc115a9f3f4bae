"""The OpenAI Agents SDK, over chat completions and over responses."""

import asyncio

import openai
from agents import (
    Agent,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    Runner,
    function_tool,
    set_tracing_disabled,
)
from openai import AsyncOpenAI
from pydantic import BaseModel

from exercise import *

set_tracing_disabled(True)


class Mill(BaseModel):
    name: str
    stones: int


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


def agent(name=CHAT_MODEL, base_url=BASE_URL, over=OpenAIChatCompletionsModel, **more):
    client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60)
    return Agent(name="miller", model=over(model=name, openai_client=client), **more)


async def streamed_text(over_agent, prompt):
    result = Runner.run_streamed(over_agent, prompt)
    text = ""
    async for event in result.stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            text += event.data.delta
    return text, result


@check
async def whole():
    result = await Runner.run(agent(), QUESTION)
    assert result.final_output == ANSWER


@check
async def streamed():
    text, result = await streamed_text(agent(), QUESTION)
    assert text == ANSWER and result.final_output == ANSWER


@check
async def tools():
    result = await Runner.run(agent(tools=[weather]), WEATHER_QUESTION)
    assert result.final_output == WEATHER_ANSWER


@check
async def tools_streamed():
    text, result = await streamed_text(agent(tools=[weather]), WEATHER_QUESTION)
    assert text == WEATHER_ANSWER and result.final_output == WEATHER_ANSWER


@check
async def structured():
    result = await Runner.run(agent(output_type=Mill), "a mill")
    assert result.final_output == Mill(**MILL)


@check
async def responses():
    over = OpenAIResponsesModel
    result = await Runner.run(agent(over=over), QUESTION)
    assert result.final_output == ANSWER
    text, result = await streamed_text(agent(over=over, tools=[weather]), WEATHER_QUESTION)
    assert text == WEATHER_ANSWER and result.final_output == WEATHER_ANSWER
    result = await Runner.run(agent(over=over, output_type=Mill), "a mill")
    assert result.final_output == Mill(**MILL)


@check
async def unknown_model():
    try:
        await Runner.run(agent(UNKNOWN_MODEL), "hello")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found", error
    else:
        raise AssertionError("no error")


@check
async def no_credits():
    try:
        await Runner.run(agent(base_url=POOR_BASE_URL), "hello")
    except openai.APIStatusError as error:
        assert error.status_code == 402 and error.code == "insufficient_credits", error
    else:
        raise AssertionError("no error")


@check
async def cancel():
    result = Runner.run_streamed(agent(), ENDLESS)
    seen = 0
    async for event in result.stream_events():
        seen += event.type == "raw_response_event"
        if seen == 8:
            break
    stopped_reading()
    result.cancel()
    # The cancellation is a task of the loop.
    await asyncio.sleep(1)


run()
