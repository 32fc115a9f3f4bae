"""Real programs' clients, each in its own environment, against real processes.

`cargo xtask test clients` makes the environments and runs this file. What a client has to show is the same for all;
what one can't do at all stands in `clients.json` with the reason.
"""

import json
import os
import subprocess
from pathlib import Path

import pytest

import upstream
from conftest import Market, eventually

HERE = Path(__file__).parent
CLIENTS = {client["name"]: client for client in json.loads((HERE / "clients.json").read_text())}
# Which of them have an environment, and the program that runs their scripts.
RUNNERS = json.loads(os.environ["GRISTMILL_CLIENT_RUNNERS"])
CHECKS = {"whole", "streamed", "tools", "structured", "embeddings", "unknown_model", "no_credits", "cancel"}
FINISHED_IN_SECONDS = 300


@pytest.fixture(scope="session")
def rich(tmp_path_factory, upstream_server):
    """A market whose client has credits."""
    yield from market_at(tmp_path_factory.mktemp("rich"), upstream_server, "--starter-grant", "50")


@pytest.fixture(scope="session")
def poor(tmp_path_factory, upstream_server):
    """A market whose client has none."""
    yield from market_at(tmp_path_factory.mktemp("poor"), upstream_server)


def market_at(folder, upstream_server, *grant):
    market = Market(folder)
    try:
        market.start_coordinator(*grant)
        market.start_node("node", "--upstream", upstream_server.url)
        market.start_client()
        market.wait_for_model(upstream.CHAT_MODEL)
        market.wait_for_model(upstream.EMBEDDING_MODEL)
        market.wait_for_model(upstream.OPENAIS_EMBEDDING_MODEL)
        yield market
    finally:
        market.stop()


@pytest.mark.parametrize("name", RUNNERS)
def test_client(name, rich, poor, upstream_server, tmp_path):
    client = CLIENTS[name]
    endless = f"{upstream.ENDLESS} {name}"
    settings = {
        "base_url": rich.base_url,
        "poor_base_url": poor.base_url,
        "chat_model": upstream.CHAT_MODEL,
        "embedding_model": upstream.EMBEDDING_MODEL,
        # One letter off, so that the answer names the right one.
        "unknown_model": upstream.CHAT_MODEL[:-1],
        "endless": endless,
    }
    environment = {
        key: value for key, value in os.environ.items()
        if not key.startswith(("GRISTMILL_", "OPENAI_", "PYTHON", "LITELLM_"))
    } | {
        "GRISTMILL_EXERCISE": json.dumps(settings),
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_COLOR": "1",
    }
    environment.pop("NODE_OPTIONS", None)
    done = subprocess.run(
        RUNNERS[name], env=environment, capture_output=True, text=True, timeout=FINISHED_IN_SECONDS, cwd=tmp_path,
        stdin=subprocess.DEVNULL,
    )
    told = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    results = {line["check"]: line for line in told if "check" in line}
    failed = {check: result.get("error") for check, result in results.items() if not result["passed"]}
    assert not failed and done.returncode == 0, f"{failed}\n{done.stdout}\n{done.stderr}"
    assert CHECKS - set(results) == set(client["cannot"]), "a check is missing, or is there although it can't be"
    # The engine hears that nobody listens any more.
    stopped = eventually("upstream stopped", lambda: upstream_server.stopped.get(endless), 20)
    for left in (line["stopped_reading"] for line in told if "stopped_reading" in line):
        print(f"{name}: upstream stopped {(stopped - left) * 1000:.0f} ms after the program had stopped reading")


def test_nothing_is_left_behind(rich, upstream_server):
    """After every client, those that left mid-stream too, the endpoint serves as before and nothing is generated."""
    eventually("nothing generated", lambda: upstream_server.streaming == 0, 30)
    before = rich.balance()
    assert before["available"] > 0
    report = eventually("ledger adds up", lambda: rich.audit(), 30)
    assert report["problems"] == []
