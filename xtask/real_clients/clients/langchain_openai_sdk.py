"""LangChain's OpenAI integration."""

import openai
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from pydantic import BaseModel

from exercise import *

COMMON = {"api_key": "none", "max_retries": 0, "timeout": 60}
model = ChatOpenAI(model=CHAT_MODEL, base_url=BASE_URL, **COMMON)


class Mill(BaseModel):
    """A mill."""

    name: str
    stones: int


@tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


@check
def whole():
    answer = model.invoke(QUESTION)
    assert answer.content == ANSWER
    assert answer.usage_metadata["output_tokens"] == 6 and answer.response_metadata["finish_reason"] == "stop"


@check
def streamed():
    whole = None
    for chunk in ChatOpenAI(model=CHAT_MODEL, base_url=BASE_URL, stream_usage=True, **COMMON).stream(QUESTION):
        whole = chunk if whole is None else whole + chunk
    assert whole.content == ANSWER and whole.usage_metadata["output_tokens"] == 6


@check
async def streamed_async():
    text = ""
    async for chunk in model.astream(QUESTION):
        text += chunk.content
    assert text == ANSWER


def loop(answer):
    bound = model.bind_tools([weather])
    messages = [HumanMessage(WEATHER_QUESTION)]
    call = answer(bound, messages)
    assert [(made["name"], made["args"]) for made in call.tool_calls] == [("weather", {"city": "Bern"})]
    messages += [call, *(ToolMessage(weather.invoke(made["args"]), tool_call_id=made["id"]) for made in call.tool_calls)]
    assert answer(bound, messages).content == WEATHER_ANSWER


@check
def tools():
    loop(lambda bound, messages: bound.invoke(messages))


@check
def tools_streamed():
    def streamed(bound, messages):
        whole = None
        for chunk in bound.stream(messages):
            whole = chunk if whole is None else whole + chunk
        return whole

    loop(streamed)


@check
def structured():
    for method in ("json_schema", "function_calling"):
        assert model.with_structured_output(Mill, method=method).invoke("a mill") == Mill(**MILL), method


@check
def embeddings():
    # Otherwise it counts tokens with a vocabulary that it downloads.
    embedder = OpenAIEmbeddings(
        model=EMBEDDING_MODEL, base_url=BASE_URL, check_embedding_ctx_length=False, **COMMON
    )
    assert embedder.embed_documents(["four", "sixsix"]) == [[4.0, 0.5], [6.0, 0.5]]
    assert embedder.embed_query("four") == [4.0, 0.5]


@check
def unknown_model():
    try:
        ChatOpenAI(model=UNKNOWN_MODEL, base_url=BASE_URL, **COMMON).invoke("hello")
    except openai.NotFoundError as error:
        assert error.code == "model_not_found"
    else:
        raise AssertionError("no error")


@check
def no_credits():
    try:
        ChatOpenAI(model=CHAT_MODEL, base_url=POOR_BASE_URL, api_key="none").invoke("hello")
    except openai.APIStatusError as error:
        assert error.status_code == 402 and error.code == "insufficient_credits"
    else:
        raise AssertionError("no error")


@check
def cancel():
    stream = model.stream(ENDLESS)
    for index, _ in enumerate(stream):
        if index == 5:
            break
    stopped_reading()
    stream.close()


run()
