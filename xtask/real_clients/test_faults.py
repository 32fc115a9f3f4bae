"""Processes are killed at any moment; nothing is lost beyond the bounds."""

import random
import time

import pytest
from openai import OpenAI

from conftest import Market, eventually
from upstream import CHAT_MODEL

CREDIT_WINDOW = 200_000


@pytest.fixture
def two_providers(tmp_path_factory, upstream_server):
    market = Market(tmp_path_factory.mktemp("faults"))
    try:
        market.start_coordinator("--starter-grant", "5")
        for name in ("first", "second"):
            market.start_node(name, "--upstream", upstream_server.url,
                              "--redeem-interval-seconds", "1")
        market.start_client()
        market.wait_for_model(CHAT_MODEL, providers=2)
        yield market
    finally:
        market.stop()


def sdk_of(market):
    # No retries by the SDK: whatever fails over, fails over inside.
    return OpenAI(base_url=market.base_url, api_key="none", max_retries=0, timeout=60)


def say(sdk, content):
    return sdk.chat.completions.create(model=CHAT_MODEL, messages=[{"role": "user", "content": content}])


def served_by(answer):
    return answer.model_dump()["gristmill"]["provider"]


def test_the_chosen_provider_is_killed_and_the_program_does_not_notice(two_providers):
    market, sdk = two_providers, sdk_of(two_providers)
    accounts = {market.account_of(name): name for name in ("first", "second")}
    chosen = accounts[served_by(say(sdk, "who serves"))]
    market.nodes[chosen].kill()
    answer = say(sdk, "who serves now")
    assert answer.choices[0].message.content == "You said: who serves now "
    assert accounts[served_by(answer)] != chosen


def test_sigkill_of_every_role_loses_nothing_beyond_the_bounds(two_providers):
    market, sdk = two_providers, sdk_of(two_providers)
    moments = random.Random(20261120)
    start = market.balance()
    granted = start["available"] + start["held"]
    for round_number in range(3):
        for process in (market.coordinator, market.nodes["first"], market.client, market.nodes["second"]):
            for _ in range(3):
                try:
                    say(sdk, f"round {round_number} " * 30)
                except Exception:
                    pass  # A killed process may fail a request; it may not lose money.
            time.sleep(moments.random() / 5)
            process.kill()
            process.start()
            time.sleep(0.2)
    eventually("market back", lambda: say(sdk, "back again").choices[0].message.content == "You said: back again ", 120)

    def everything_is_redeemed():
        return all(market.earnings(name)["pending"] == 0 for name in ("first", "second"))

    eventually("all vouchers redeemed", everything_is_redeemed, 60)
    report = market.audit()
    assert report["problems"] == []
    assert report["issued"] == report["available"] + report["held"] + report["fees"]
    end = market.balance()
    paid = granted - end["available"] - end["held"]
    earned = sum(market.earnings(name)["earned"] for name in ("first", "second"))
    fees = report["fees"]
    assert paid == earned + fees, (paid, earned, fees)
    assert paid > 0
