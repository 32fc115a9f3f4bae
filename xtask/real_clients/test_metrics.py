"""What monitoring and accounting are told, read by programs that we did not write."""

import csv
import io
import json
import urllib.request

import openai
import pytest
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client import parser as prometheus

import upstream
from conftest import command, eventually, get


def text(url, accept, key=None):
    headers = {"accept": accept}
    if key is not None:
        headers["authorization"] = f"Bearer {key}"
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
        return answer.headers["content-type"], answer.read().decode()


def ask(market, key="none", **fields):
    client = openai.OpenAI(base_url=market.base_url, api_key=key, max_retries=0)
    messages = [{"role": "user", "content": "What is Gristmill?"}]
    return client.chat.completions.with_raw_response.create(
        model=upstream.CHAT_MODEL, messages=messages, max_tokens=20, **fields
    )


@pytest.mark.parametrize(
    ("accept", "media_type", "parse"),
    [
        ("text/plain", "text/plain", prometheus.text_string_to_metric_families),
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text",
         openmetrics.text_string_to_metric_families),
    ],
)
def test_metrics_are_read_by_prometheus_own_parsers(market, accept, media_type, parse):
    assert ask(market).status_code == 200
    content_type, exposed = text(f"{market.client_url}/metrics", accept)
    assert content_type.startswith(media_type)
    families = {family.name: family for family in parse(exposed)}
    durations = families["gen_ai_client_operation_duration_seconds"]
    assert durations.type == "histogram"
    counts = [sample for sample in durations.samples if sample.name.endswith("_count")]
    answered = [sample for sample in counts if sample.labels["gen_ai_request_model"] == upstream.CHAT_MODEL]
    assert sum(sample.value for sample in answered) >= 1
    assert any(sample.value > 0 for sample in families["gristmill_cost_microcredits"].samples)


def test_usage_is_the_sum_of_what_answers_said(market):
    def by_model():
        done = command(market.folder / "client", "client", "usage", "--by", "model", "--json")
        return json.loads(done.stdout)["total"]["cost"]

    def by_provider():
        done = command(market.folder / "client", "client", "usage", "--by", "provider", "--csv")
        return sum(int(row["cost_microcredits"]) for row in csv.DictReader(io.StringIO(done.stdout)))

    def of_requests():
        return {one["request_id"]: one["cost"] for one in get(f"{market.base_url}/usage/requests?limit=500")["data"]}

    answers = [ask(market) for _ in range(2)]
    said = {answer.headers["x-request-id"]: int(answer.headers["x-gristmill-cost"]) for answer in answers}
    assert len(said) == 2 and all(cost > 0 for cost in said.values())
    eventually("the requests are written down as they were told", lambda: said.items() <= of_requests().items())
    # An earlier test's request may be written down only now, so nothing is compared with a sum from before.
    eventually("all sums are the same", lambda: by_model() == by_provider() == sum(of_requests().values()))
