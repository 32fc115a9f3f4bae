"""Anthropic's Python SDK against the running proxy: it validates the answers and accumulates the events itself."""

import anthropic
import pytest
from anthropic import Anthropic

from conftest import eventually
from upstream import CHAT_MODEL, ENDLESS, PROMPT_TOKENS

WEATHER = {
    "name": "weather",
    "description": "Tells the weather of a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


@pytest.fixture
def client(market):
    return Anthropic(base_url=market.client_url, api_key="none", max_retries=0, timeout=60)


def ask(content):
    return [{"role": "user", "content": content}]


def test_whole(client):
    answer = client.messages.create(
        model=CHAT_MODEL, max_tokens=50, messages=ask("one two"), system="Be short.", stop_sequences=["###"]
    )
    assert (answer.type, answer.role, answer.model) == ("message", "assistant", CHAT_MODEL)
    assert [block.text for block in answer.content] == ["You said: one two "]
    assert (answer.stop_reason, answer.stop_sequence) == ("end_turn", None)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (PROMPT_TOKENS, 5)
    assert answer._request_id and answer._request_id in answer.id
    assert answer.model_dump()["gristmill"]["cost"] >= 0


def test_streamed_as_raw_events(client):
    events = list(client.messages.create(model=CHAT_MODEL, max_tokens=50, messages=ask("one two"), stream=True))
    kinds = [event.type for event in events if event.type != "ping"]
    assert kinds[:2] == ["message_start", "content_block_start"]
    assert kinds[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert set(kinds[2:-3]) == {"content_block_delta"}
    assert events[-2].usage.output_tokens == 5


def test_streamed_through_the_helper_that_accumulates(client):
    with client.messages.stream(model=CHAT_MODEL, max_tokens=50, messages=ask("one two")) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == final.content[0].text == "You said: one two "
    assert (final.stop_reason, final.usage.input_tokens) == ("end_turn", PROMPT_TOKENS)


def test_tools_loop(client):
    asked = ask("What is the weather?")
    first = client.messages.create(
        model=CHAT_MODEL, max_tokens=50, messages=asked, tools=[WEATHER], tool_choice={"type": "any"}
    )
    assert first.stop_reason == "tool_use"
    (call,) = [block for block in first.content if block.type == "tool_use"]
    assert (call.name, call.input) == ("weather", {"city": "Bern"})
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain"}
    messages = [*asked, {"role": "assistant", "content": first.content}, {"role": "user", "content": [result]}]
    second = client.messages.create(model=CHAT_MODEL, max_tokens=50, messages=messages, tools=[WEATHER])
    assert second.content[0].text == "The tool said: rain"


def test_tools_streamed(client):
    with client.messages.stream(
        model=CHAT_MODEL, max_tokens=50, messages=ask("weather twice"), tools=[WEATHER]
    ) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    calls = [block for block in final.content if block.type == "tool_use"]
    assert [call.input for call in calls] == [{"city": "Bern"}] * 2 and len(pieces) > 2
    assert final.stop_reason == "tool_use"


def test_what_was_thought_is_a_block_of_its_own(client):
    with client.messages.stream(model=CHAT_MODEL, max_tokens=50, messages=ask("think first")) as stream:
        final = stream.get_final_message()
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.content[0].thinking == "Let me think."
    # It can be sent back as it came.
    messages = [*ask("think first"), {"role": "assistant", "content": final.content}, *ask("one")]
    assert client.messages.create(model=CHAT_MODEL, max_tokens=50, messages=messages).content


def test_errors_are_the_sdks_own(client):
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(model="upstream-cha", max_tokens=5, messages=ask("x"))
    assert caught.value.body["error"]["type"] == "not_found_error" and CHAT_MODEL in caught.value.message
    assert caught.value.request_id
    with pytest.raises(anthropic.BadRequestError) as caught:
        client.messages.create(model=CHAT_MODEL, max_tokens=5, messages=[])
    assert "messages" in caught.value.message
    for stream in (False, True):
        with pytest.raises(anthropic.BadRequestError) as caught:
            list(client.messages.create(model=CHAT_MODEL, max_tokens=5, messages=ask("break"), stream=stream))
        assert "upstream says no" in caught.value.message


def test_early_close_stops_the_upstream(client, upstream_server):
    before = upstream_server.disconnects
    with client.messages.stream(
        model=CHAT_MODEL, max_tokens=100_000, messages=ask(f"{ENDLESS} and messages")
    ) as stream:
        for index, _ in enumerate(stream.text_stream):
            if index == 5:
                break
    eventually("upstream stopped", lambda: upstream_server.disconnects > before, 20)


def test_tokens_are_counted(client):
    bare = client.messages.count_tokens(model=CHAT_MODEL, messages=ask("one two three")).input_tokens
    more = client.messages.count_tokens(model=CHAT_MODEL, messages=ask("one two three"), tools=[WEATHER]).input_tokens
    assert 5 <= bare < more <= 60
