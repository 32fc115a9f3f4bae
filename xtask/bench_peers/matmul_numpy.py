"""Seconds per product of two random f32 matrices in numpy, which uses OpenBLAS, as one JSON line.

Usage: matmul_numpy.py ROWS REPEATS
"""

import json
import resource
import sys
import time

import numpy


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


rows, repeats = int(sys.argv[1]), int(sys.argv[2])
generator = numpy.random.default_rng(1)
left = generator.integers(-15, 16, (rows, rows)).astype(numpy.float32)
right = generator.integers(-15, 16, (rows, rows)).astype(numpy.float32)
left @ right
wall, processor = [], []
for _ in range(repeats):
    before, started = processor_seconds(), time.perf_counter()
    left @ right
    wall.append(time.perf_counter() - started)
    processor.append(processor_seconds() - before)
print(json.dumps({"library": f"numpy {numpy.__version__}", "wall": wall, "processor": processor}))
