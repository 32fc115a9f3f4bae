"""Pydantic AI, which validates every chunk strictly."""

from openai import AsyncOpenAI
from pydantic import BaseModel
from pydantic_ai import Agent, NativeOutput, PromptedOutput, ToolOutput
from pydantic_ai.exceptions import ModelHTTPError
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

from exercise import *


class Mill(BaseModel):
    name: str
    stones: int


def model(name=CHAT_MODEL, base_url=BASE_URL):
    client = AsyncOpenAI(base_url=base_url, api_key="none", max_retries=0, timeout=60)
    return OpenAIChatModel(name, provider=OpenAIProvider(openai_client=client))


def agent_with_weather():
    agent = Agent(model())

    @agent.tool_plain
    def weather(city: str) -> str:
        """The weather of a city."""
        return f"sunny in {city}"

    return agent


@check
async def whole():
    result = await Agent(model()).run(QUESTION)
    assert result.output == ANSWER


@check
async def streamed():
    async with Agent(model()).run_stream(QUESTION) as result:
        text = ""
        async for part in result.stream_text(delta=True):
            text += part
    assert text == ANSWER, text


@check
async def tools():
    result = await agent_with_weather().run(WEATHER_QUESTION)
    assert result.output == WEATHER_ANSWER


@check
async def tools_streamed():
    async with agent_with_weather().run_stream(WEATHER_QUESTION) as result:
        assert await result.get_output() == WEATHER_ANSWER


@check
async def structured():
    for output in (Mill, ToolOutput(Mill), NativeOutput(Mill), PromptedOutput(Mill)):
        result = await Agent(model(), output_type=output).run("a mill, as JSON")
        assert result.output == Mill(**MILL), output
    async with Agent(model(), output_type=Mill).run_stream("a mill") as result:
        assert await result.get_output() == Mill(**MILL)


@check
async def embeddings():
    from pydantic_ai import Embedder
    from pydantic_ai.embeddings.openai import OpenAIEmbeddingModel

    client = AsyncOpenAI(base_url=BASE_URL, api_key="none", max_retries=0)
    embedder = Embedder(OpenAIEmbeddingModel(EMBEDDING_MODEL, provider=OpenAIProvider(openai_client=client)))
    result = await embedder.embed_documents(["four", "sixsix"])
    assert [list(vector) for vector in result.embeddings] == [[4.0, 0.5], [6.0, 0.5]]


@check
async def unknown_model():
    try:
        await Agent(model(UNKNOWN_MODEL)).run("hello")
    except ModelHTTPError as error:
        assert error.status_code == 404 and error.body["code"] == "model_not_found", error
    else:
        raise AssertionError("no error")


@check
async def no_credits():
    try:
        await Agent(model(base_url=POOR_BASE_URL)).run("hello")
    except ModelHTTPError as error:
        assert error.status_code == 402 and error.body["code"] == "insufficient_credits", error
    else:
        raise AssertionError("no error")


@check
async def cancel():
    async with Agent(model()).run_stream(ENDLESS) as result:
        seen = 0
        async for _ in result.stream_text(delta=True, debounce_by=None):
            seen += 1
            if seen == 5:
                break
        stopped_reading()


run()
