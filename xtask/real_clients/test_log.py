"""The Merkle log is checked from its HTTP interface with code that is not ours: hashlib, cryptography, PyJWT, and
pymerkle, whose trees are those of RFC 6962."""

import base64
import hashlib
import json
import os
import time
import urllib.error
import urllib.request

import jwt
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from openai import OpenAI
from pymerkle.core import BaseMerkleTree
from pymerkle.proof import InvalidProof

from conftest import eventually, get
from upstream import CHAT_MODEL

TILE_WIDTH = 256
# BLAKE3 of nothing: what a call without a body signs.
NO_BODY = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"


def fetch(url, headers=None):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=5) as answer:
        return answer.read()


def leaf_hash(entry):
    return hashlib.sha256(b"\x00" + entry).digest()


def open_note(note, verifier_key):
    """The text of a C2SP signed note, if the key has signed it."""
    name, key_id, key = verifier_key.split("+", 2)
    key = base64.b64decode(key, validate=True)
    assert hashlib.sha256(name.encode() + b"\n" + key).digest()[:4].hex() == key_id
    assert key[0] == 1 and len(key) == 33
    text, signatures = note.split("\n\n", 1)
    text += "\n"
    for line in signatures.splitlines():
        dash, signer, signature = line.split(" ")
        signature = base64.b64decode(signature, validate=True)
        if dash == "\u2014" and signer == name and signature[:4].hex() == key_id:
            Ed25519PublicKey.from_public_bytes(key[1:]).verify(signature[4:], text.encode())
            return text
    raise AssertionError(f"{name} has not signed")


def checkpoint(note, info):
    origin, size, root = open_note(note, info["verifier_key"]).splitlines()
    assert origin == info["origin"] == f"gristmill/log/{info['account']}"
    return int(size), base64.b64decode(root, validate=True)


def newest(market):
    info = get(f"{market.coordinator_url}/v1/network")["log"]
    return checkpoint(fetch(f"{market.coordinator_url}/log/checkpoint").decode(), info)


class ServedTree(BaseMerkleTree):
    """A tree over the leaves in the tiles that the coordinator serves; everything above them pymerkle computes."""

    def __init__(self, url, size):
        self.leaves = []
        for index in range(-(-size // TILE_WIDTH)):
            width = min(TILE_WIDTH, size - index * TILE_WIDTH)
            assert index < 1000, "longer paths are not needed here"
            path = f"/log/tile/0/{index:03}" + (f".p/{width}" if width < TILE_WIDTH else "")
            tile = fetch(url + path)
            assert len(tile) == 32 * width
            self.leaves += [tile[at:at + 32] for at in range(0, len(tile), 32)]
        super().__init__("sha256")

    def _encode_entry(self, data):
        raise NotImplementedError("the log is only read")

    def _store_leaf(self, data, digest):
        raise NotImplementedError("the log is only read")

    def _get_leaf(self, index):
        return self.leaves[index - 1]

    def _get_leaves(self, offset, width):
        return self.leaves[offset:offset + width]

    def _get_size(self):
        return len(self.leaves)


class Party:
    """Somebody with a key, who signs calls with an ordinary JWT library."""

    def __init__(self, market, name):
        [key] = [path for path in (market.folder / name / "data").rglob("*.key")]
        self.key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(key.read_text().strip()))
        self.market = market

    def get(self, account, path):
        now = int(time.time())
        coordinator = get(f"{self.market.coordinator_url}/v1/network")["coordinator"]
        claims = {"iss": account, "sub": account, "aud": coordinator, "jti": os.urandom(16).hex(), "iat": now,
                  "exp": now + 30, "method": "GET", "path": path, "body_digest": NO_BODY}
        token = jwt.encode(claims, self.key, algorithm="EdDSA", headers={"typ": "gristmill-caller+jwt"})
        url = self.market.coordinator_url + path
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def paid(market):
    """A checkpoint, a payment after it, and its receipts as the provider has them."""
    sdk = OpenAI(base_url=market.base_url, api_key="none", max_retries=0)
    before = len(market.receipts("node-upstream")["receipts"])
    old = eventually("a checkpoint", lambda: newest(market))
    sdk.chat.completions.create(model=CHAT_MODEL, messages=[{"role": "user", "content": "prove this please " * 20}])
    receipts = eventually(
        "settlement", lambda: market.receipts("node-upstream")["receipts"][before:] or None, 90)
    return {"old": old, "account": market.account_of("node-upstream"),
            "receipts": [receipt["token"] for receipt in receipts]}


def test_a_receipt_is_in_the_log(market, paid):
    info = get(f"{market.coordinator_url}/v1/network")["log"]
    coordinator = get(f"{market.coordinator_url}/v1/network")["coordinator"]
    keys = jwt.PyJWKClient(f"{market.coordinator_url}/.well-known/jwks.json")
    provider = Party(market, "node-upstream")
    for receipt in paid["receipts"]:
        claims = jwt.decode(receipt, keys.get_signing_key_from_jwt(receipt), algorithms=["EdDSA"],
                            audience=paid["account"], issuer=coordinator)
        sequence = claims["sequence"]

        def proved():
            view = provider.get(paid["account"], f"/v1/receipts/{sequence}")
            return view if view["proof"] else None
        view = eventually("the proof", proved)
        assert view["receipt"] == receipt
        entry = base64.b64decode(view["log_entry"], validate=True)
        leaf = leaf_hash(entry)
        assert leaf.hex() == claims["record_hash"]
        assert int.from_bytes(entry[:8], "little") == sequence
        assert int.from_bytes(entry[8:16], "little") // 1000 == claims["iat"]

        proof, note = view["proof"].split("\n\n", 1)
        header, index, *hashes = proof.splitlines()
        assert header == "c2sp.org/tlog-proof@v1" and index == f"index {sequence - 1}"
        size, root = checkpoint(note, info)
        hashes = [base64.b64decode(line, validate=True) for line in hashes]
        # pymerkle makes the same proof of the served tiles, and verifies ours.
        foreign = ServedTree(market.coordinator_url, size).prove_inclusion(sequence, size)
        assert foreign.path == [leaf, *hashes]
        foreign.path = [leaf, *hashes]
        foreign.verify(leaf, root, index=sequence, size=size, algorithm="sha256")
        with pytest.raises(InvalidProof):
            foreign.verify(leaf_hash(entry + b"\x00"), root)
        with pytest.raises(InvalidProof):
            foreign.verify(leaf, leaf)


def test_two_checkpoints_are_consistent(market, paid):
    (old_size, old_root) = paid["old"]
    size, root = eventually("a newer checkpoint", lambda: next(
        (found for found in [newest(market)] if found[0] > old_size), None))
    tree = ServedTree(market.coordinator_url, size)
    assert (tree.get_root(old_size), tree.get_root(size)) == (old_root, root)
    proof = tree.prove_consistency(old_size, size)
    proof.verify(old_root, root, prior_size=old_size, later_size=size, algorithm="sha256")
    with pytest.raises(InvalidProof):
        proof.verify(root, old_root)


def test_a_changed_checkpoint_is_not_signed(market):
    info = get(f"{market.coordinator_url}/v1/network")["log"]
    note = fetch(f"{market.coordinator_url}/log/checkpoint").decode()
    size = str(checkpoint(note, info)[0])
    with pytest.raises(InvalidSignature):
        open_note(note.replace(f"\n{size}\n", f"\n{size}0\n", 1), info["verifier_key"])


def test_entries_are_for_auditors(market):
    with pytest.raises(urllib.error.HTTPError) as refused:
        fetch(f"{market.coordinator_url}/log/tile/entries/000.p/1", {"Authorization": "Bearer guessed"})
    assert refused.value.code == 401
