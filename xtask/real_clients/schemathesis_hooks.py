"""Gives requests keys of their own, and models that are on offer where `GRISTMILL_MODELS_ON_OFFER` is set and others
where it isn't."""

import os
import re
import uuid
import zlib

import schemathesis

CHAT = ("upstream-chat", "gristmill-guide")
ON_OFFER = {
    "/v1/embeddings": ("upstream-embedding",),
}


@schemathesis.hook
def before_call(context, case, kwargs):
    # What is wrong in itself stays so: to be refused is what it is made for.
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch("[!-~]{1,255}", key):
        # A key belongs to one request for ever, and Schemathesis knows a few keys only.
        case.headers["Idempotency-Key"] = key[:200] + uuid.uuid4().hex
    body = case.body
    if not (isinstance(body, dict) and isinstance(body.get("model"), str)):
        return
    if not os.environ.get("GRISTMILL_MODELS_ON_OFFER"):
        # Schemathesis tries again what it has seen in answers, such as the names of models; what these can't do is
        # theirs to refuse.
        if any(body["model"] in models for models in (CHAT, *ON_OFFER.values())):
            body["model"] = "offered-by-nobody"
        return
    if re.fullmatch("[ -~]{1,128}", body["model"]):
        models = ON_OFFER.get(case.path, CHAT)
        body["model"] = models[zlib.crc32(repr(body).encode(errors="replace")) % len(models)]
