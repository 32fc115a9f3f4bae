"""Receipts are checked with ordinary JOSE libraries, and the ledger adds up."""

import json
import subprocess

import jwt
import pytest
from openai import OpenAI

from conftest import eventually, get, secrets_in
from upstream import CHAT_MODEL


@pytest.fixture(scope="module")
def paid(market):
    """One paid request, settled."""
    sdk = OpenAI(base_url=market.base_url, api_key="none", max_retries=0)
    sdk.chat.completions.create(model=CHAT_MODEL, messages=[{"role": "user", "content": "pay for this please " * 20}])
    eventually("settlement", lambda: market.receipts("node-upstream")["receipts"], 90)
    return {
        "account": market.account_of("node-upstream"),
        "receipts": [receipt["token"] for receipt in market.receipts("node-upstream")["receipts"]],
    }


def test_pyjwt_verifies_a_receipt(market, paid):
    coordinator = get(f"{market.coordinator_url}/v1/network")["coordinator"]
    keys = jwt.PyJWKClient(f"{market.coordinator_url}/.well-known/jwks.json")
    for receipt in paid["receipts"]:
        key = keys.get_signing_key_from_jwt(receipt)
        claims = jwt.decode(receipt, key, algorithms=["EdDSA"], audience=paid["account"], issuer=coordinator)
        assert jwt.get_unverified_header(receipt)["typ"] == "gristmill-receipt+jwt"
        assert claims["paid"] > 0 and 0 <= claims["fee"] <= claims["paid"]
        assert claims["sub"] == paid["account"]
        with pytest.raises(jwt.InvalidAudienceError):
            jwt.decode(receipt, key, algorithms=["EdDSA"], audience="somebody else", issuer=coordinator)
        head, body, signature = receipt.split(".")
        with pytest.raises(jwt.InvalidTokenError):
            jwt.decode(".".join([head, body[:-2] + "xx", signature]), key, algorithms=["EdDSA"],
                       audience=paid["account"], issuer=coordinator)


def test_jose_verifies_a_receipt(market, paid, node_folder):
    given = {
        "jwks": get(f"{market.coordinator_url}/.well-known/jwks.json"),
        "receipts": paid["receipts"],
        "issuer": get(f"{market.coordinator_url}/v1/network")["coordinator"],
        "audience": paid["account"],
    }
    done = subprocess.run(["node", str(node_folder / "verify_receipt.mjs"), json.dumps(given)],
                          capture_output=True, text=True, timeout=60, cwd=node_folder)
    assert done.returncode == 0, done.stderr


def test_the_ledger_adds_up(market, paid):
    report = market.audit()
    assert report["problems"] == []
    assert report["issued"] == report["available"] + report["held"] + report["fees"]


def test_no_prompt_and_no_secret_is_kept(market, paid):
    for process in market.processes:
        assert "pay for this please" not in process.text()
        assert not secrets_in(process.text())
    keys = list(market.folder.glob("*/data/gristmill/**/*.key"))
    assert len(keys) >= 4
    for key in keys:
        assert key.stat().st_mode & 0o077 == 0, key
    for path in market.folder.rglob("*"):
        if path.is_file():
            assert b"pay for this please" not in path.read_bytes(), path
