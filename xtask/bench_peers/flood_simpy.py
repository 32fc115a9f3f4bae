"""Messages that flood a network, in SimPy: one JSON line of what came out and what it took.

Usage: flood_simpy.py NETWORK SECONDS

NETWORK is a file of `measure network`. After SECONDS of processor time the run ends and tells what it did until then.

A receipt is an event of its own with a callback, put on the environment's schedule with its delay. That is what SimPy
itself does for a timeout; a process and a store for each node, SimPy's usual way, take several times as long for the
same receipts.
"""

import gc
import json
import resource
import signal
import sys
import time
from array import array

import simpy
from simpy.events import NORMAL, Event

DEGREE = 8


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class TooLong(BaseException):
    """The run has had its time."""


def too_long(_number, _frame):
    raise TooLong


class Receipt(Event):
    """A message reaches a node."""

    __slots__ = ("node", "message", "sender")

    def __init__(self, env, callbacks, node, message, sender):
        self.env = env
        self.callbacks = callbacks
        self._value = None
        self._ok = True
        self._defused = False
        self.node = node
        self.message = message
        self.sender = sender


numbers = array("I")
with open(sys.argv[1], "rb") as file:
    numbers.frombytes(file.read())
nodes, messages = numbers[0], numbers[1]
access = numbers[2 : 2 + nodes].tolist()
flat = numbers[2 + nodes : 2 + nodes + DEGREE * nodes].tolist()
neighbours = [flat[node * DEGREE : (node + 1) * DEGREE] for node in range(nodes)]
publications = numbers[2 + nodes + DEGREE * nodes :].tolist()
seconds = float(sys.argv[2])

env = simpy.Environment()
schedule = env.schedule
seen = [0] * nodes
deliveries = duplicates = delivered_us_sum = 0


def receive(receipt):
    global deliveries, duplicates, delivered_us_sum
    node, bit, sender = receipt.node, receipt.message, receipt.sender
    if seen[node] & bit:
        duplicates += 1
        return
    seen[node] |= bit
    deliveries += 1
    delivered_us_sum += env.now
    for neighbour in neighbours[node]:
        if neighbour != sender:
            schedule(Receipt(env, (receive,), neighbour, bit, node), NORMAL, access[neighbour])


for message in range(messages):
    node, at_us = publications[2 * message], publications[2 * message + 1]
    schedule(Receipt(env, (receive,), node, 1 << message, node), NORMAL, at_us)
# What the garbage collector costs is no part of the simulator: there are no cycles.
gc.disable()
complete = True
signal.signal(signal.SIGVTALRM, too_long)
signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
started, used = time.perf_counter(), processor_seconds()
try:
    env.run()
except TooLong:
    complete = False
signal.setitimer(signal.ITIMER_VIRTUAL, 0)
print(
    json.dumps(
        {
            "simulator": f"simpy {simpy.__version__}",
            "nodes": nodes,
            "messages": messages,
            "events": deliveries + duplicates,
            "deliveries": deliveries,
            "duplicates": duplicates,
            "delivered_us_sum": delivered_us_sum,
            "complete": complete,
            "wall_s": time.perf_counter() - started,
            "processor_s": processor_seconds() - used,
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
    )
)
