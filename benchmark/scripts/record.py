#!/usr/bin/env python3
"""Puts what measure-cuda.sh measured into one JSON object. Run by it.

Example: record.py --folder WORK --run-seconds 1.0 9.5 --verify-seconds 9.5 9.8
"""

import argparse
import datetime
import json
import pathlib


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", required=True, type=pathlib.Path, help="where the parts lie")
    for part in ("run", "verify"):
        parser.add_argument(f"--{part}-seconds", required=True, nargs=2, type=float, help="when it began and ended")
    arguments = parser.parse_args()
    read = lambda name: json.loads((arguments.folder / name).read_text(encoding="utf-8"))  # noqa: E731
    took = lambda begun_and_ended: round(begun_and_ended[1] - begun_and_ended[0], 3)  # noqa: E731
    record = {
        "bench": "proof-cuda",
        "day": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "devices": read("devices.json"),
        "run": read("run.json"),
        "run_seconds": took(arguments.run_seconds),
        "verify": read("verify.json"),
        "verify_seconds": took(arguments.verify_seconds),
        "proof_file_bytes": (arguments.folder / "proof.bin").stat().st_size,
        "torch": read("torch.json"),
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
