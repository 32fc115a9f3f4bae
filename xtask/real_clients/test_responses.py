"""The official Python SDK's Responses against the running proxy: its own accumulation of the events is the judge."""

import json

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from conftest import eventually
from upstream import CHAT_MODEL, ENDLESS, PROMPT_TOKENS

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather of a city.",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


@pytest.fixture
def client(market):
    return OpenAI(base_url=market.base_url, api_key="none", max_retries=0, timeout=60)


def test_whole(client):
    answer = client.responses.create(model=CHAT_MODEL, input="one two", instructions="Be short.", metadata={"a": "b"})
    assert answer.output_text == "You said: one two "
    assert (answer.status, answer.error, answer.store) == ("completed", None, False)
    assert (answer.instructions, answer.metadata) == ("Be short.", {"a": "b"})
    assert answer.usage.input_tokens == PROMPT_TOKENS and answer.usage.output_tokens == 5
    assert answer.model_dump()["gristmill"]["cost"] >= 0


def test_streamed_as_raw_events(client):
    events = list(client.responses.create(model=CHAT_MODEL, input="one two", stream=True))
    kinds = [event.type for event in events]
    assert kinds[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]
    assert kinds[-4:] == ["response.output_text.done", "response.content_part.done", "response.output_item.done",
                          "response.completed"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == "You said: one two " == events[-1].response.output_text


def test_streamed_through_the_helper_that_accumulates(client):
    with client.responses.stream(model=CHAT_MODEL, input=[{"role": "user", "content": "one two"}]) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert snapshots[-1] == final.output_text == "You said: one two "
    assert final.usage.output_tokens == 5


def test_tools_loop(client):
    asked = [{"role": "user", "content": "What is the weather?"}]
    first = client.responses.create(model=CHAT_MODEL, input=asked, tools=[WEATHER], tool_choice="required")
    (call,) = [item for item in first.output if item.type == "function_call"]
    assert (call.name, json.loads(call.arguments)) == ("weather", {"city": "Bern"})
    told = {"type": "function_call_output", "call_id": call.call_id, "output": "rain"}
    second = client.responses.create(model=CHAT_MODEL, input=[*asked, *first.output, told], tools=[WEATHER])
    assert second.output_text == "The tool said: rain"


def test_tools_streamed(client):
    with client.responses.stream(model=CHAT_MODEL, input="weather twice", tools=[WEATHER]) as stream:
        arguments = {}
        for event in stream:
            if event.type == "response.function_call_arguments.delta":
                arguments[event.output_index] = event.snapshot
        final = stream.get_final_response()
    calls = [item for item in final.output if item.type == "function_call"]
    assert [call.arguments for call in calls] == list(arguments.values()) and len(calls) == 2
    assert len({call.call_id for call in calls}) == 2


def test_structured(client):
    class Place(BaseModel):
        name: str
        people: int

    parsed = client.responses.parse(model=CHAT_MODEL, input="Where?", text_format=Place).output_parsed
    assert parsed == Place(name="Bern", people=7)


def test_what_was_thought_is_an_item_of_its_own(client):
    with client.responses.stream(model=CHAT_MODEL, input="think first") as stream:
        events = [event.type for event in stream]
        final = stream.get_final_response()
    assert "response.reasoning_text.delta" in events
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.output[0].content[0].text == "Let me think."


def test_nothing_is_stored_and_that_is_said(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=CHAT_MODEL, input="more", previous_response_id="resp_1")
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "unsupported_parameter")
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model=CHAT_MODEL, input="x", tools=[{"type": "web_search"}])
    assert caught.value.param == "tools"
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")


def test_an_upstreams_own_error_survives_the_trip(client):
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            list(client.responses.create(model=CHAT_MODEL, input="break", stream=stream))
        assert "upstream says no" in caught.value.message and caught.value.param == "input"


def test_early_close_stops_the_upstream(client, upstream_server):
    before = upstream_server.disconnects
    stream = client.responses.create(model=CHAT_MODEL, input=f"{ENDLESS} and responses", stream=True)
    for index, _ in enumerate(stream):
        if index == 8:
            break
    stream.close()
    eventually("upstream stopped", lambda: upstream_server.disconnects > before, 20)


def test_tokens_are_counted(client):
    counted = client.responses.input_tokens.count(model=CHAT_MODEL, input="one two three")
    assert counted.object == "response.input_tokens" and 5 <= counted.input_tokens <= 20
