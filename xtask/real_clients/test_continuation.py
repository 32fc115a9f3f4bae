"""A node is killed in the middle of an answer of the built-in engine; another one writes on, and nobody notices."""

import pytest
from openai import OpenAI

from conftest import Market, eventually

MODEL = "gristmill-guide"
QUESTION = [{"role": "user", "content": "What is Gristmill, and how are providers paid?"}]


@pytest.fixture
def two_guides(tmp_path_factory):
    """A cheap node, which is asked first, and a dear one, both with the guide model."""
    market = Market(tmp_path_factory.mktemp("continuation"))
    try:
        market.start_coordinator("--starter-grant", "5")
        for name, price in (("cheap", "10"), ("dear", "50")):
            market.start_node(name, "--model", "guide", "--upstream", "none",
                              "--price-input", price, "--price-output", price, "--redeem-interval-seconds", "1")
        # A second provider beside a slow one is another story.
        market.start_client("--hedging", "false")
        market.wait_for_model(MODEL, providers=2)
        yield market
    finally:
        market.stop()


def ask(market):
    sdk = OpenAI(base_url=market.base_url, api_key="none", max_retries=0, timeout=300)
    return sdk.chat.completions.create(
        model=MODEL, messages=QUESTION, temperature=0, max_tokens=120, stream=True,
        stream_options={"include_usage": True},
    )


def read(stream, kill_at=None, kill=None):
    """The text of a stream, why it ended, its usage, and what Gristmill says of it."""
    text, finish, usage, ours, pieces = "", [], None, None, 0
    for chunk in stream:
        for choice in chunk.choices:
            piece = choice.delta.content or ""
            text += piece
            pieces += bool(piece)
            if choice.finish_reason:
                finish.append(choice.finish_reason)
            if piece and pieces == kill_at:
                kill()
        usage = chunk.usage or usage
        ours = chunk.model_dump().get("gristmill") or ours
    return text, finish, usage, ours


def held_and_available(market):
    balance = market.balance()
    return balance["available"] + balance["held"]


@pytest.mark.parametrize("kill_at", [2, 9])
def test_a_killed_node_is_replaced_in_the_middle_of_an_answer(two_guides, kill_at):
    market = two_guides
    accounts = {name: market.account_of(name) for name in ("cheap", "dear")}
    granted = held_and_available(market)
    whole, finish, usage, first = read(ask(market))
    assert first["provider"] == accounts["cheap"] and finish in (["stop"], ["length"])
    text, broken_finish, broken_usage, second = read(ask(market), kill_at, market.nodes["cheap"].kill)
    assert (text, broken_finish) == (whole, finish)
    assert broken_usage.prompt_tokens == usage.prompt_tokens
    assert [share["provider"] for share in second["providers"]] == [accounts["cheap"], accounts["dear"]]
    assert second["cost"] == sum(share["cost"] for share in second["providers"])
    # The dead node has what it delivered as well: the client handed its last voucher in.
    cost = first["cost"] + second["cost"]
    eventually("everything is settled", lambda: granted - held_and_available(market) == cost, 60)
    assert market.audit()["problems"] == []
