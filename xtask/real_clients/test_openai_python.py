"""The official Python SDK against the running proxy."""

import openai
import pytest
from openai import OpenAI

from conftest import eventually, get
from upstream import CHAT_MODEL, EMBEDDING_MODEL


@pytest.fixture
def client(market):
    return OpenAI(base_url=market.base_url, api_key="none", max_retries=0, timeout=60)


def ask(content):
    return [{"role": "user", "content": content}]


def test_guide_answers_in_english(client):
    answer = client.chat.completions.create(
        model="gristmill-guide", messages=ask("What is Gristmill?"), temperature=0, max_tokens=80
    )
    text = answer.choices[0].message.content
    assert "Gristmill" in text and "GPU" in text, text
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage.completion_tokens > 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_streamed_chat(client):
    stream = client.chat.completions.create(
        model=CHAT_MODEL, messages=ask("one two three"), stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "You said: one two three "
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"
    usages = [chunk.usage for chunk in chunks if chunk.usage]
    assert len(usages) == 1 and usages[0].completion_tokens == 6 and usages[0].prompt_tokens == 7
    assert not chunks[-1].choices


def test_no_usage_chunk_unless_asked(client):
    chunks = list(client.chat.completions.create(model=CHAT_MODEL, messages=ask("x"), stream=True))
    assert all(chunk.usage is None for chunk in chunks)
    assert all(chunk.choices for chunk in chunks)


def test_same_answer_whole(client):
    answer = client.chat.completions.with_raw_response.create(model=CHAT_MODEL, messages=ask("one two three"))
    assert answer.headers["x-request-id"].startswith("req_")
    assert float(answer.headers["openai-processing-ms"]) >= 0
    parsed = answer.parse()
    assert parsed.choices[0].message.content == "You said: one two three "
    assert parsed.choices[0].message.role == "assistant"
    assert parsed.usage.completion_tokens == 6


def test_embeddings(client):
    answer = client.embeddings.create(model=EMBEDDING_MODEL, input=["four", "sixsix"], encoding_format="float")
    assert [item.embedding for item in answer.data] == [[4.0, 0.5], [6.0, 0.5]]
    assert answer.usage.prompt_tokens == 3


def test_models(client):
    models = {model.id: model for model in client.models.list()}
    assert {"gristmill-guide", CHAT_MODEL, EMBEDDING_MODEL} <= set(models)
    one = client.models.retrieve("gristmill-guide")
    assert one.object == "model" and one.created > 0 and one.owned_by
    assert one.model_dump()["context_length"] > 0
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_unknown_model_names_near_ones(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gristmil-guide", messages=ask("hello"))
    assert caught.value.code == "model_not_found"
    assert "gristmill-guide" in caught.value.message


def test_bad_requests_name_the_field(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gristmill-guide", messages=[])
    assert caught.value.body["param"] == "messages"
    tool = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="gristmill-guide", messages=ask("hi"), tools=[tool])
    assert caught.value.body["param"] == "tools"


def test_the_guide_makes_several_choices(client):
    answer = client.chat.completions.create(model="gristmill-guide", messages=ask("What is Gristmill?"), n=2)
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(choice.message.content for choice in answer.choices)


def test_an_upstreams_own_error_survives_the_trip(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=CHAT_MODEL, messages=ask("break"))
    assert "upstream says no" in caught.value.message
    assert caught.value.code == "4711"


def test_early_close_stops_the_upstream(client, market, upstream_server):
    before = upstream_server.disconnects
    stream = client.chat.completions.create(model=CHAT_MODEL, messages=ask("for ever"), stream=True)
    for index, _ in enumerate(stream):
        if index == 5:
            break
    stream.close()
    eventually("upstream stopped", lambda: upstream_server.disconnects > before, 20)
    paid_now = market.balance()
    assert paid_now["available"] >= 0


def test_no_credits(market, tmp_path_factory, client):
    from conftest import Market

    poor = Market(tmp_path_factory.mktemp("poor"))
    try:
        poor.start_coordinator()
        poor.start_node("node", "--model", "guide", "--upstream", "none")
        poor.start_client()
        poor.wait_for_model("gristmill-guide")
        sdk = OpenAI(base_url=poor.base_url, api_key="none", max_retries=0)
        with pytest.raises(openai.APIStatusError) as caught:
            sdk.chat.completions.create(model="gristmill-guide", messages=ask("hello"))
        assert caught.value.status_code == 402
        assert caught.value.code == "insufficient_credits"
        # The operator helps, as the message says, and the next call goes through.
        poor.grant(poor.balance()["account"], "1")
        answer = sdk.chat.completions.create(model="gristmill-guide", messages=ask("hello"), max_tokens=20)
        assert answer.choices[0].message.content
    finally:
        poor.stop()


def test_health(market):
    assert get(f"{market.client_url}/healthz")
    assert get(f"{market.client_url}/readyz")
