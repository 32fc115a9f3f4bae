"""The official Node SDK against the running proxy."""

import subprocess
from pathlib import Path

from conftest import eventually
from upstream import CHAT_MODEL, EMBEDDING_MODEL

HERE = Path(__file__).parent


def run_node(node_folder, script, *arguments):
    return subprocess.run(
        ["node", str(node_folder / script), *arguments], capture_output=True, text=True, timeout=120, cwd=node_folder
    )


def test_node_sdk(market, upstream_server, node_folder):
    before = upstream_server.disconnects
    done = run_node(node_folder, "openai_node.mjs", market.base_url, CHAT_MODEL, EMBEDDING_MODEL)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("ok ") == 8
    eventually("upstream stopped", lambda: upstream_server.disconnects > before, 20)
