"""The script with numpy that recomputes opened units, against a proof that the real program made on this processor."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = os.environ["GRISTMILL_PROGRAM"]
SCRIPT = Path(__file__).parents[2] / "benchmark" / "scripts" / "verify_tile.py"
# Measuring the processor and the rounds take seconds; the limit only bounds a failure.
PROOF_IN_SECONDS = 300


def script():
    definition = importlib.util.spec_from_file_location("verify_tile", SCRIPT)
    module = importlib.util.module_from_spec(definition)
    definition.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def proof(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proof")
    path = folder / "proof.bin"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GRISTMILL_")}
    places = {"XDG_CONFIG_HOME": str(folder / "config"), "XDG_DATA_HOME": str(folder / "data")}
    command = [PROGRAM, "benchmark", "run", "--device", "cpu", "--offline", str(path)]
    subprocess.run(command, check=True, timeout=PROOF_IN_SECONDS, env={**environment, **places})
    return path


def test_numpy_agrees_with_every_opened_unit_that_it_recomputes(proof):
    compared, wrong = script().check(proof, 5)
    assert (compared, wrong) == (10, [])
    found = subprocess.run([PROGRAM, "benchmark", "verify", str(proof)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr


def test_a_changed_unit_is_found_by_both(proof, tmp_path):
    module = script()
    transcript, (opened, _) = module.read(proof)
    unit = transcript["units"][0]
    number = unit["row"] * transcript["parameters"]["dimension"] // 8 + unit["column"]
    data = bytearray(proof.read_bytes())
    place = data.index(opened[0].tobytes()) + 4 * (number % 256)
    data[place] ^= 1
    changed = tmp_path / "changed.bin"
    changed.write_bytes(data)
    compared, wrong = module.check(changed, 1)
    assert compared == 2 and len(wrong) == 1, wrong
    found = subprocess.run([PROGRAM, "benchmark", "verify", str(changed)], capture_output=True, timeout=60)
    assert found.returncode == 1


def test_the_script_as_a_program(proof):
    command = [sys.executable, str(SCRIPT), str(proof), "--units", "2"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout) == (0, "4 of 4 units agree\n"), found.stderr
