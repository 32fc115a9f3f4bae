"""Messages that flood a network, in SimPy: one JSON line of what came out and what it took.

Usage: flood_simpy.py NETWORK SECONDS

NETWORK is a file of `measure network`. After SECONDS of processor time the run ends and tells what it did until then.

A receipt is an event of its own with a callback, put on the environment's schedule with its delay. That is what SimPy
itself does for a timeout; a process and a store for each node, SimPy's usual way, take several times as long for the
same receipts.
"""

import gc
import signal

import simpy
from flood import Watch, arguments
from simpy.events import NORMAL, Event


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


network, seconds = arguments()
access, neighbours = network.access, network.neighbours
env = simpy.Environment()
schedule = env.schedule
seen = [0] * network.nodes
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


for message, (node, at_us) in enumerate(network.publications):
    schedule(Receipt(env, (receive,), node, 1 << message, node), NORMAL, at_us)
# What the garbage collector costs is no part of the simulator: there are no cycles.
gc.disable()
complete = True
signal.signal(signal.SIGVTALRM, too_long)
signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
watch = Watch()
try:
    env.run()
except TooLong:
    complete = False
signal.setitimer(signal.ITIMER_VIRTUAL, 0)
watch.tell(f"simpy {simpy.__version__}", network, deliveries, duplicates, delivered_us_sum, complete)
