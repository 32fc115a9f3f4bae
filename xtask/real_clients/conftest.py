"""A whole market of real processes on loopback, as the guides start it."""

import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import upstream

PROGRAM = os.environ["GRISTMILL_PROGRAM"]
STARTED_IN_SECONDS = 60


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url, timeout=5):
    with urllib.request.urlopen(url, timeout=timeout) as answer:
        return json.load(answer)


def eventually(what, check, seconds=STARTED_IN_SECONDS):
    """Waits until `check` returns something true; the limit only bounds a failure."""
    deadline = time.monotonic() + seconds
    last = None
    while time.monotonic() < deadline:
        try:
            found = check()
            if found:
                return found
        except (OSError, urllib.error.URLError, AssertionError, KeyError) as error:
            last = error
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen within {seconds} s: {last!r}")


class Process:
    """One role in its own process, its own session, with its own state."""

    def __init__(self, folder, arguments, environment=None):
        self.arguments = [PROGRAM, *arguments]
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("GRISTMILL_")},
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_DATA_HOME": str(folder / "data"),
            "NO_COLOR": "1",
            **(environment or {}),
        }
        self.log = folder / "log"
        folder.mkdir(parents=True, exist_ok=True)
        self.process = None
        self.start()

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.arguments, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"did not stop within 30 s of SIGTERM:\n{self.text()}")
        return self.process.returncode

    def text(self):
        return self.log.read_text(errors="replace")

    def running(self):
        assert self.process.poll() is None, f"exited with {self.process.returncode}:\n{self.text()}"
        return True


def command(folder, *arguments, check=True, seconds=120):
    """Runs one command of the program with the state of a role."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GRISTMILL_")},
        "XDG_CONFIG_HOME": str(folder / "config"),
        "XDG_DATA_HOME": str(folder / "data"),
        "NO_COLOR": "1",
    }
    done = subprocess.run(
        [PROGRAM, *arguments], env=environment, capture_output=True, text=True, timeout=seconds, stdin=subprocess.DEVNULL
    )
    if check:
        assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


class Market:
    """A coordinator, any number of nodes, and a client."""

    def __init__(self, folder):
        self.folder = folder
        self.processes = []
        self.nodes = {}
        self.coordinator_url = f"http://127.0.0.1:{free_port()}"
        self.client_url = f"http://127.0.0.1:{free_port()}"
        self.base_url = f"{self.client_url}/v1"

    def start_coordinator(self, *extra):
        self.coordinator = self._start(
            "coordinator",
            ["coordinator", "serve", "--http-listen", self.coordinator_url.removeprefix("http://"), *extra],
            {"GRISTMILL_COORDINATOR_MESH_LISTEN": f"/ip4/127.0.0.1/udp/{free_port()}/quic-v1"},
        )
        eventually("coordinator ready", lambda: self.coordinator.running() and get(f"{self.coordinator_url}/healthz"))

    def start_node(self, name, *extra, hardware=False):
        local_api = f"127.0.0.1:{free_port()}"
        node = self._start(
            name,
            ["node", "serve", "--coordinator", self.coordinator_url, *extra],
            {
                "GRISTMILL_NODE_MESH_LISTEN": f"/ip4/127.0.0.1/udp/{free_port()}/quic-v1",
                "GRISTMILL_NODE_LOCAL_API": local_api,
                # It takes the whole machine; the test of it says so.
                "GRISTMILL_NODE_HARDWARE_ENABLED": "true" if hardware else "false",
            },
        )
        node.local_api = f"http://{local_api}"
        self.nodes[name] = node
        return node

    def start_client(self, *extra):
        self.client = self._start(
            "client",
            ["client", "serve", "--coordinator", self.coordinator_url,
             "--listen", self.client_url.removeprefix("http://"), *extra],
            {"GRISTMILL_CLIENT_MESH_LISTEN": f"/ip4/127.0.0.1/udp/{free_port()}/quic-v1"},
        )
        eventually("client ready", lambda: self.client.running() and get(f"{self.client_url}/healthz"))

    def models(self):
        return {model["id"]: model for model in get(f"{self.base_url}/models")["data"]}

    def wait_for_model(self, model, providers=1):
        def offered():
            return self.models().get(model, {}).get("providers", 0) >= providers
        eventually(f"{model} offered by {providers}", offered)

    def grant(self, account, credits):
        return command(
            self.folder / "coordinator", "coordinator", "grant", account, credits,
            "--coordinator", self.coordinator_url, "--json",
        )

    def balance(self):
        done = command(self.folder / "client", "client", "balance", "--coordinator", self.coordinator_url, "--json")
        return json.loads(done.stdout)

    def account_of(self, name):
        """The account of a node that runs, as its own API says."""
        return eventually(f"{name} tells its account", lambda: get(f"{self.nodes[name].local_api}/v1/status")["account"])

    def earnings(self, name):
        return json.loads(command(self.folder / name, "node", "earnings", "--json").stdout)

    def receipts(self, name):
        return json.loads(command(self.folder / name, "node", "earnings", "--receipts", "--json").stdout)

    def audit(self):
        place = self.folder / "coordinator" / "data" / "gristmill" / "coordinator" / "ledger"
        done = command(self.folder / "coordinator", "ledger", "audit", str(place), "--json", check=False)
        report = json.loads(done.stdout)
        assert done.returncode == 0, report
        return report

    def _start(self, name, arguments, environment):
        process = Process(self.folder / name, arguments, environment)
        self.processes.append(process)
        return process

    def stop(self):
        for process in reversed(self.processes):
            if process.process.poll() is None:
                process.kill()


@pytest.fixture(scope="session")
def upstream_server():
    server = upstream.start()
    yield server
    server.shutdown()


@pytest.fixture(scope="session")
def market(tmp_path_factory, upstream_server):
    """One coordinator with starter grants, two nodes (guide model; upstream server), one client."""
    market = Market(tmp_path_factory.mktemp("market"))
    try:
        market.start_coordinator("--starter-grant", "5")
        market.start_node("node-guide", "--model", "guide", "--upstream", "none")
        market.start_node("node-upstream", "--upstream", upstream_server.url, "--redeem-interval-seconds", "1")
        market.start_client()
        market.wait_for_model("gristmill-guide")
        market.wait_for_model(upstream.CHAT_MODEL)
        yield market
    finally:
        market.stop()


def secrets_in(text):
    return re.findall(r"\b[0-9a-f]{64}\b", text)


@pytest.fixture(scope="session")
def node_folder():
    """The folder in which npm installed the Node packages, with our scripts beside them."""
    return Path(os.environ["GRISTMILL_NODE_FOLDER"])
