"""Schemathesis reads `/openapi.json` and looks for answers that the document does not promise: statuses, shapes and
headers that are not in it, valid requests that are refused, invalid ones that are taken, and answers of 500."""

import os
import subprocess
import sys
import urllib.request
from pathlib import Path

from conftest import get

HOOKS = Path(__file__).with_name("schemathesis_hooks.py")
# How long it looks. The seed is always the same one.
EXAMPLES = "5"
LIMIT_SECONDS = 300
# Whether what the endpoint itself does not read makes sense is for providers to judge.
JUDGED_BY_PROVIDERS = "positive_data_acceptance,negative_data_rejection"
# These ask no provider, and count also what one would refuse.
COUNTING = "/(input_tokens|count_tokens)$"


def run(folder, document, *arguments, **environment):
    return subprocess.run(
        [
            str(Path(sys.executable).with_name("st")), "run", document, "--seed", "1", "--max-examples", EXAMPLES,
            "--suppress-health-check", "all", "--request-timeout", "30", "--no-color", *arguments,
        ],
        env={**os.environ, "SCHEMATHESIS_HOOKS": HOOKS.stem, "PYTHONPATH": str(HOOKS.parent), **environment},
        cwd=folder, capture_output=True, text=True, timeout=LIMIT_SECONDS, stdin=subprocess.DEVNULL,
    )


def told(done):
    return done.stdout[-20_000:] + done.stderr[-5_000:]


def test_the_endpoint_judges_requests_as_documented(market, tmp_path):
    done = run(
        tmp_path, f"{market.client_url}/openapi.json", "--checks", "all", "--exclude-path-regex", COUNTING
    )
    assert done.returncode == 0, told(done)


def test_answers_of_providers_are_as_documented(market, tmp_path):
    market.grant(get(f"{market.client_url}/healthz")["account"], "1000")
    done = run(
        tmp_path, f"{market.client_url}/openapi.json", "--checks", "all", "--exclude-checks", JUDGED_BY_PROVIDERS,
        "--phases", "examples,fuzzing", "--include-method", "POST", GRISTMILL_MODELS_ON_OFFER="1",
    )
    assert done.returncode == 0, told(done)


def test_a_promise_that_is_not_kept_is_found(market, tmp_path):
    with urllib.request.urlopen(f"{market.client_url}/openapi.json") as answer:
        document = answer.read().decode()
    assert '"const": "list"' in document
    promised = tmp_path / "openapi.json"
    promised.write_text(document.replace('"const": "list"', '"const": "row"'))
    done = run(
        tmp_path, str(promised), "--url", market.client_url, "--include-path", "/v1/models", "--checks",
        "response_schema_conformance",
    )
    assert done.returncode == 1 and "GET /v1/models" in done.stdout, told(done)
