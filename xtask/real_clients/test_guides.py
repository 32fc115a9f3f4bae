"""The guides, word by word: every `sh`, `python` and `toml` block of each is run."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import upstream
from conftest import PROGRAM, eventually, get

GUIDES = Path(__file__).parents[2] / "docs" / "guides"


def blocks(guide, language):
    return re.findall(rf"^```{language}\n(.*?)^```", (GUIDES / guide).read_text(), re.MULTILINE | re.DOTALL)


class Terminal:
    """A shell with a home of the village's and `gristmill` on its path, that keeps what is exported."""

    def __init__(self, home, name):
        self.home, self.name, self.served = home, name, []
        programs = home / "programs"
        programs.mkdir(parents=True, exist_ok=True)
        if not (programs / "gristmill").exists():
            (programs / "gristmill").symlink_to(PROGRAM)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("GRISTMILL_", "XDG_"))},
            "HOME": str(home), "PATH": f"{programs}:{os.environ['PATH']}", "NO_COLOR": "1",
        }

    def type(self, block):
        for line in block.strip().splitlines():
            if line.startswith("export "):
                done = self.run(f"{line} && env -0")
                for pair in done.stdout.split("\0"):
                    name, _, value = pair.partition("=")
                    if name.startswith("GRISTMILL_"):
                        self.environment[name] = value
            elif " serve" in line:
                self.serve(line)
            else:
                yield line, self.run(line)

    def run(self, line):
        done = subprocess.run(["bash", "-c", line], env=self.environment, capture_output=True, text=True, timeout=120,
                              stdin=subprocess.DEVNULL)
        assert done.returncode == 0, f"{line}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def serve(self, line):
        log = open(self.home / f"{self.name}.log", "ab")
        self.served.append(subprocess.Popen(["bash", "-c", f"exec {line}"], env=self.environment,
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def close(self):
        for process in self.served:
            process.terminate()
        for process in self.served:
            assert process.wait(timeout=60) == 0, (self.home / f"{self.name}.log").read_text()


def sh(terminal, guide, block=0):
    return list(terminal.type(blocks(guide, "sh")[block]))


def test_three_terminals_as_the_guides_say(tmp_path):
    """Coordinator, node with an OpenAI-compatible upstream on vLLM's port, and client, on their default ports."""
    server = upstream.start(8000)
    terminals = {name: Terminal(tmp_path, name) for name in ("coordinator", "node", "client")}
    try:
        sh(terminals["coordinator"], "coordinator.md", 0)
        eventually("coordinator", lambda: get("http://127.0.0.1:7400/healthz"))
        granted = sh(terminals["coordinator"], "coordinator.md", 1)
        assert "10" in granted[-1][1].stdout
        sh(terminals["node"], "provider.md", 0)
        sh(terminals["client"], "developer.md", 0)

        def offered():
            models = get("http://127.0.0.1:7420/v1/models")["data"]
            return upstream.CHAT_MODEL in {model["id"] for model in models}

        eventually("the upstream's model is on offer", offered)
        listed = sh(terminals["node"], "provider.md", 1)
        assert upstream.CHAT_MODEL in listed[0][1].stdout
        asked = list(terminals["client"].type(
            f'gristmill client chat --model {upstream.CHAT_MODEL} "one two three"'))
        assert asked[0][1].stdout.strip() == "You said: one two three"
    finally:
        for name in ("client", "node", "coordinator"):
            terminals[name].close()
        server.shutdown()
        server.server_close()


def test_the_guides_with_the_guide_model(tmp_path):
    """The same without any upstream: what a new user sees first."""
    terminals = {name: Terminal(tmp_path, name) for name in ("coordinator", "node", "client")}
    try:
        sh(terminals["coordinator"], "coordinator.md", 0)
        eventually("coordinator", lambda: get("http://127.0.0.1:7400/healthz"))
        sh(terminals["node"], "provider.md", 0)
        sh(terminals["client"], "developer.md", 0)

        def offered():
            models = get("http://127.0.0.1:7420/v1/models")["data"]
            return "gristmill-guide" in {model["id"] for model in models}

        eventually("the guide model is on offer", offered)
        program = blocks("developer.md", "python")[0]
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "Gristmill" in done.stdout
        told = sh(terminals["client"], "developer.md", 1)
        assert "gristmill-guide" in told[0][1].stdout
        assert "Gristmill" in told[1][1].stdout
    finally:
        for name in ("client", "node", "coordinator"):
            terminals[name].close()


def test_the_operators_guide(tmp_path):
    """Every command of the operators' guide that needs no database, in the order in which it has them."""
    terminal = Terminal(tmp_path, "coordinator")
    terminal.environment["GRISTMILL_COORDINATOR_MESH_LISTEN"] = "/ip4/127.0.0.1/udp/0/quic-v1"

    def run(block):
        return [done.stdout for _, done in sh(terminal, "coordinator.md", block)]

    try:
        run(0)
        eventually("coordinator", lambda: get("http://127.0.0.1:7400/healthz"))
        run(1)
        frozen, unfrozen, statement, _ = run(2)
        assert "FROZEN" in frozen and "FROZEN" in unfrozen.splitlines()[1] and "prepaid" in statement
        eventually("a checkpoint", lambda: get("http://127.0.0.1:7400/v1/network"))
        private, public, offline = run(3)
        assert "clean" in private and "everything holds" in public and "stolen key" in offline
        assert "read back and verified" in run(4)[0]
        assert "audit" in run(5)[0]
        terminal.close()
        terminal.served = []
        assert "new key" in run(6)[0]
        run(0)
        eventually("coordinator", lambda: get("http://127.0.0.1:7400/healthz"))
        done = terminal.run("gristmill ledger verify --coordinator http://127.0.0.1:7400 --json")
        assert json.loads(done.stdout)["handovers"] == 1
    finally:
        terminal.close()


@pytest.mark.parametrize("guide", sorted(path.name for path in GUIDES.glob("*.md")))
def test_configuration_examples_are_understood(guide, tmp_path):
    for block in blocks(guide, "toml"):
        if "[coordinator]" not in block and "[node]" not in block and "[client]" not in block:
            continue  # A scenario of the simulator; its crate's tests read it.
        file = tmp_path / "config.toml"
        file.write_text(block)
        done = subprocess.run([PROGRAM, "--config", str(file), "benchmark", "devices", "--json"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr


def test_the_demo_as_the_readme_says(tmp_path):
    done = subprocess.run([PROGRAM, "demo", "--once"], capture_output=True, text=True, timeout=120,
                          env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    assert "Gristmill" in done.stdout and "audit       clean" in done.stdout
