#!/usr/bin/env python3
"""Recomputes opened units of a proof of hardware with numpy, independently of gristmill.

    pip install numpy blake3
    gristmill benchmark run --offline proof.bin
    python3 verify_tile.py proof.bin --units 20

Reads the file that `gristmill benchmark run --offline` writes. What is computed is specified in docs/PROOF.md. That the
opened values belong to the commitments is left to `gristmill benchmark verify`.
"""

import argparse
import json
import math
import struct
import sys

import numpy as np
from blake3 import blake3

NAME = b"gristmill offline proof 1\n"
SLICES = 8
ODD = np.arange(1, 16, 2)


def derive(context, *parts):
    return blake3(b"".join(parts), derive_key_context=f"gristmill hardware {context} 1").digest()


def words(digest, counter, count):
    key = np.frombuffer(digest[:16], "<u8")
    return np.random.Philox(key=key, counter=counter).random_raw(count).astype("<u8")


def entries(setup_seed, n, matrix, row):
    """A row of A (matrix 0), or a column of B (matrix 1)."""
    most = math.isqrt((2**21 - 1) // n)
    key = derive("matrices", setup_seed, struct.pack("<I", n))
    raw = words(key, [0, row, matrix, 0], n // 8).view(np.uint8).astype(np.int64)
    return (raw * (2 * most + 1) >> 8) - most


def permutation(chain_value, n):
    order = np.arange(n)
    drawn = words(derive("permutation", chain_value), [0, 0, 2, 0], n)
    for last, word in zip(range(n - 1, 0, -1), drawn):
        place = int(word) * (last + 1) >> 64
        order[[last, place]] = order[[place, last]]
    return order


def sums(setup_seed, n, row, column, order):
    """The 64 entries of a unit, exact."""
    a = np.stack([entries(setup_seed, n, 0, row + p * n // SLICES) for p in range(SLICES)])
    b = np.stack([entries(setup_seed, n, 1, column + q * n // SLICES) for q in range(SLICES)], axis=1)
    return a @ b[order]


def weighted(by_column):
    centred = by_column - np.rint(by_column / 2**18).astype(np.int64) * 2**18
    return int(ODD @ centred)


def stage_value(c, precision):
    if precision == "bf16":
        fraction, exponent = np.frexp(c)
        c = np.ldexp(np.rint(fraction * 256), exponent - 8).astype(np.int64)
    high = np.rint(c / 2**11).astype(np.int64)
    low = c - high * 2**11
    return weighted((low * (high + ODD[:, None])).sum(axis=0))


def resident_value(c, nonce):
    weights = np.frombuffer(derive("residency weights", nonce)[:16], np.uint8).astype(np.int64)
    low, high = c & 255, c >> 8 & 255
    return weighted(((low + weights[:8, None]) * (high + weights[8:, None])).sum(axis=0))


def chain_values(transcript):
    """The chain value of each stage and round."""
    challenge = bytes.fromhex(transcript["challenge"])
    for number, stage in enumerate(transcript["stages"]):
        start = (struct.pack("<Q", len(challenge)), challenge, struct.pack("<I", number))
        value = derive("stage", *start, bytes.fromhex(stage["round_seed"]))
        for round_, root in enumerate(stage["roots"]):
            yield (number, round_), value
            value = derive("chain", value, bytes.fromhex(root))


def read(path):
    """The transcript, and for each list of openings the chunks of 256 unit values."""
    with open(path, "rb") as file:
        data = file.read()
    if not data.startswith(NAME):
        sys.exit(f"{path} is no offline proof")
    at = len(NAME) + 4
    end = at + int.from_bytes(data[at - 4 : at], "little")
    transcript = json.loads(data[at:end])["transcript"]
    openings = []
    at = end
    for _ in range(2):
        count, at = int.from_bytes(data[at : at + 8], "little"), at + 8
        openings.append([])
        for _ in range(count):
            openings[-1].append(np.frombuffer(data, "<i4", 256, at + 8))
            siblings = int.from_bytes(data[at + 1032 : at + 1040], "little")
            at += 1040 + 32 * siblings
    return transcript, openings


def check(path, units):
    """How many units were compared, and which of them differ."""
    transcript, (opened, opened_resident) = read(path)
    parameters = transcript["parameters"]
    n, stages = parameters["dimension"], parameters["stages"]
    seed, nonce = bytes.fromhex(transcript["setup_seed"]), bytes.fromhex(transcript["nonce"])
    before_resident = stages[-1]["rounds"] - parameters["resident_rounds"]
    chain, orders, wrong = dict(chain_values(transcript)), {}, []

    def compare(unit, chunk, round_, value):
        key = (unit["stage"], round_)
        if key not in orders:
            orders[key] = permutation(chain[key], n)
        expected = value(sums(seed, n, unit["row"], unit["column"], orders[key]))
        actual = int(chunk[(unit["row"] * (n // SLICES) + unit["column"]) % 256])
        if actual != expected:
            wrong.append(f"{unit}: {actual} where {expected} is right")

    asked = list(zip(transcript["units"], opened))[:units]
    asked_resident = list(zip(transcript["resident_units"], opened_resident))[:units]
    for unit, chunk in asked:
        precision = stages[unit["stage"]]["precision"]
        compare(unit, chunk, unit["round"], lambda c: stage_value(c, precision))
    for unit, chunk in asked_resident:
        compare(unit, chunk, before_resident + unit["round"], lambda c: resident_value(c, nonce))
    return len(asked) + len(asked_resident), wrong


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("proof", help="the file that `gristmill benchmark run --offline` wrote")
    parser.add_argument("--units", type=int, default=10, help="how many units of each kind to recompute (default: 10)")
    arguments = parser.parse_args()
    compared, wrong = check(arguments.proof, arguments.units)
    print(*wrong, f"{compared - len(wrong)} of {compared} units agree", sep="\n")
    sys.exit(1 if wrong or compared == 0 else 0)


if __name__ == "__main__":
    main()
