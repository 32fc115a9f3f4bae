"""The `llm` program and its library, set up by its configuration file as its manual says."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

folder = tempfile.TemporaryDirectory()
os.environ["LLM_USER_PATH"] = folder.name
os.environ["OPENAI_API_KEY"] = "none"

import llm

from exercise import *

pathlib.Path(folder.name, "extra-openai-models.yaml").write_text(
    "".join(
        f"- model_id: {name}\n"
        f"  model_name: {model}\n"
        f"  api_base: {base_url}\n"
        "  api_key_name: mill\n"
        "  supports_tools: true\n"
        "  supports_schema: true\n"
        for name, model, base_url in (
            ("mill", CHAT_MODEL, BASE_URL),
            ("missing", UNKNOWN_MODEL, BASE_URL),
            ("poor", CHAT_MODEL, POOR_BASE_URL),
        )
    )
)
pathlib.Path(folder.name, "keys.json").write_text(json.dumps({"mill": "none"}))
PROGRAM = str(pathlib.Path(sys.executable).with_name("llm"))


def call(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60)


@check
def whole():
    done = call("-m", "mill", "--no-stream", QUESTION)
    assert done.stdout.strip() == ANSWER.strip(), (done.stdout, done.stderr)


@check
def streamed():
    done = call("-m", "mill", "--usage", QUESTION)
    assert done.stdout.strip() == ANSWER.strip(), (done.stdout, done.stderr)
    assert "7 input, 6 output" in done.stderr, done.stderr


@check
def tools():
    functions = 'def weather(city: str) -> str:\n    "The weather of a city"\n    return f"sunny in {city}"\n'
    for more in ([], ["--no-stream"]):
        done = call("-m", "mill", *more, "--functions", functions, WEATHER_QUESTION)
        assert WEATHER_ANSWER in done.stdout, (done.stdout, done.stderr)


@check
def structured():
    done = call("-m", "mill", "--schema", "name, stones int", "a mill")
    assert json.loads(done.stdout) == MILL, (done.stdout, done.stderr)


@check
def library():
    text = "".join(llm.get_model("mill").prompt(QUESTION, key="none"))
    assert text == ANSWER, text


@check
def embeddings():
    # Its own models have fixed names; the address is what the OpenAI SDK takes from the environment.
    environment = os.environ | {"OPENAI_BASE_URL": BASE_URL}
    done = subprocess.run(
        [PROGRAM, "embed", "-m", "3-small", "-c", "four", "--key", "none"],
        capture_output=True, text=True, timeout=60, env=environment,
    )
    assert json.loads(done.stdout or "null") == [4.0, 0.5], (done.stdout, done.stderr)


@check
def unknown_model():
    done = call("-m", "missing", "hello")
    assert done.returncode != 0 and CHAT_MODEL in done.stderr, (done.stdout, done.stderr)


@check
def no_credits():
    done = call("-m", "poor", "hello")
    assert done.returncode != 0 and "credits" in done.stderr, (done.stdout, done.stderr)


@check
def cancel():
    process = subprocess.Popen([PROGRAM, "-m", "mill", ENDLESS], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout.read(20)
    stopped_reading()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


run()
