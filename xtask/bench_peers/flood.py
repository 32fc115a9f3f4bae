"""What the peers' programs of the flood share: the network that they read, and the JSON line that they tell."""

import json
import resource
import sys
import time
from array import array

DEGREE = 8


class Network:
    """A file of `measure network`: delays of nodes in microseconds, their neighbours, and who publishes when."""

    def __init__(self, path: str) -> None:
        numbers = array("I")
        with open(path, "rb") as file:
            numbers.frombytes(file.read())
        self.nodes, self.messages = numbers[0], numbers[1]
        self.access = numbers[2 : 2 + self.nodes].tolist()
        flat = numbers[2 + self.nodes : 2 + self.nodes + DEGREE * self.nodes].tolist()
        self.neighbours = [flat[node * DEGREE : (node + 1) * DEGREE] for node in range(self.nodes)]
        publications = numbers[2 + self.nodes + DEGREE * self.nodes :].tolist()
        # The node of each message, and its time in microseconds.
        self.publications = list(zip(publications[0::2], publications[1::2]))


def arguments() -> tuple[Network, float]:
    """The network and the seconds of processor time on the command line."""
    return Network(sys.argv[1]), float(sys.argv[2])


def processor_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


class Watch:
    """What a run takes from now on."""

    def __init__(self) -> None:
        self.started, self.used = time.perf_counter(), processor_seconds()

    def processor_seconds(self) -> float:
        return processor_seconds() - self.used

    def tell(self, simulator, network, deliveries, duplicates, delivered_us_sum, complete) -> None:
        """Prints what came out and what it took."""
        line = {
            "simulator": simulator,
            "nodes": network.nodes,
            "messages": network.messages,
            "events": deliveries + duplicates,
            "deliveries": deliveries,
            "duplicates": duplicates,
            "delivered_us_sum": delivered_us_sum,
            "complete": complete,
            "wall_s": time.perf_counter() - self.started,
            "processor_s": self.processor_seconds(),
            "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        }
        print(json.dumps(line), flush=True)
