#!/usr/bin/env python3
"""What PyTorch reaches with the product of a challenge on the same GPU, as JSON.

Example: torch_peak.py --device cuda:0 --run run.json
"""

import argparse
import json
import time

import torch

SECONDS = 2.0


def multiply_adds_per_second(rows: int, precision: str, device: str) -> float:
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    left = torch.randint(-11, 12, (rows, rows), device=device).to(dtype)
    right = torch.randint(-11, 12, (rows, rows), device=device).to(dtype)
    for _ in range(3):
        left @ right
    torch.cuda.synchronize(device)
    products, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        for _ in range(4):
            left @ right
        torch.cuda.synchronize(device)
        products += 4
    return products * rows**3 / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0", help="which GPU")
    parser.add_argument("--run", required=True, help="what `gristmill benchmark run --offline FILE --json` printed")
    arguments = parser.parse_args()
    with open(arguments.run, encoding="utf-8") as file:
        run = json.load(file)["devices"][0]
    rows = run["parameters"]["dimension"]
    shares = []
    for measured in run["measured"]:
        peak = multiply_adds_per_second(rows, measured["precision"], arguments.device)
        shares.append(
            {
                "precision": measured["precision"],
                "torch_multiply_adds_per_second": int(peak),
                "gristmill_multiply_adds_per_second": measured["multiply_adds_per_second"],
                "share_of_torch": measured["multiply_adds_per_second"] / peak,
                "multiplying_share": measured["multiplying_share"],
            }
        )
    print(json.dumps({"torch": torch.__version__, "rows": rows, "shares": shares}, indent=2))


if __name__ == "__main__":
    main()
