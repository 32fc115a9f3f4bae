"""What every exercise of a client shares: where the market is, and how a check is counted.

An exercise runs in its client's own environment, which has nothing of ours in it, so this file needs the standard
library only. It prints one JSON object per check; `test_clients.py` reads them.
"""

import asyncio
import inspect
import json
import os
import sys
import time
import traceback

SETTINGS = json.loads(os.environ["GRISTMILL_EXERCISE"])
BASE_URL = SETTINGS["base_url"]
# An endpoint whose account has no credits.
POOR_BASE_URL = SETTINGS["poor_base_url"]
CHAT_MODEL = SETTINGS["chat_model"]
EMBEDDING_MODEL = SETTINGS["embedding_model"]
UNKNOWN_MODEL = SETTINGS["unknown_model"]
# A prompt that the upstream answers without end, and by which it tells that it was stopped.
ENDLESS = SETTINGS["endless"]

QUESTION = "one two three"
ANSWER = "You said: one two three "
# What the upstream makes of a schema with a `name` and a number of `stones`.
MILL = {"name": "Bern", "stones": 7}
WEATHER_QUESTION = "What is the weather?"
WEATHER = "sunny in Bern"
# What the upstream says once it has read the tool's result.
WEATHER_ANSWER = "The tool said: sunny in Bern"

_checks = []


def check(function):
    """Counts a function, with or without `async`, as the check of its name."""
    _checks.append(function)
    return function


def ask(content):
    return [{"role": "user", "content": content}]


def stopped_reading():
    """Tells when the program went away, on the clock that all processes of the machine share."""
    print(json.dumps({"stopped_reading": time.monotonic()}), flush=True)


def run():
    """Runs every check, prints what came of it, and fails where one failed."""
    failed = 0
    for function in _checks:
        result = {"check": function.__name__, "passed": True}
        try:
            outcome = function()
            if inspect.isawaitable(outcome):
                asyncio.run(_await(outcome))
        except BaseException as error:  # noqa: BLE001: an exit inside a client is a failure too
            failed += 1
            traceback.print_exc()
            result |= {"passed": False, "error": f"{type(error).__name__}: {error}"[:2000]}
        print(json.dumps(result), flush=True)
    sys.stdout.flush()
    sys.exit(1 if failed else 0)


async def _await(outcome):
    await asyncio.wait_for(outcome, 120)
