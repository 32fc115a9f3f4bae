"""Messages that flood a network, in SimGrid: one JSON line of what came out and what it took.

Usage: flood_simgrid.py NETWORK SECONDS

NETWORK is a file of `measure network`. After SECONDS of processor time the run ends and tells what it did until then.

A host, an actor and a mailbox for each node. The mailbox has its actor as receiver, so that a message is on its way as
soon as it is sent and the sender waits for nothing. The platform is a star of links with a latency each and so much
bandwidth that nothing is shared, under CM02, the network model with the least to compute, without factors and
cross-traffic. SimGrid's Python actors are threads of the system: that bounds how many nodes there can be.
"""

import gc
import os
import threading

import simgrid
from flood import Watch, arguments
from simgrid import Actor, Engine, LinkInRoute, Mailbox, NetZone, this_actor

LOOK_EVERY = 256
END_S = 600.0

network, seconds = arguments()
nodes, neighbours, publications = network.nodes, network.neighbours, network.publications

threading.stack_size(64 * 1024)
engine = Engine(
    [
        "flood",
        "--log=root.thres:error",
        "--cfg=contexts/stack-size:64",
        "--cfg=network/model:CM02",
        "--cfg=network/crosstraffic:0",
        "--cfg=network/latency-factor:1",
        "--cfg=network/bandwidth-factor:1",
        "--cfg=network/TCP-gamma:0",
    ]
)
# Since version 4 zones are added to the engine's own, and routes are between hosts.
newer = hasattr(NetZone, "add_netzone_star")
zone = engine.netzone_root.add_netzone_star("world") if newer else NetZone.create_star_zone("world")
add_host, add_link = (zone.add_host, zone.add_link) if newer else (zone.create_host, zone.create_link)


def add_way(name, latency_s, source, target):
    link = add_link(name, 1e15).set_latency(latency_s)
    link.seal()
    ends = [source, target] if newer else [source and source.netpoint, target and target.netpoint, None, None]
    zone.add_route(*ends, [LinkInRoute(link)], False)


hosts = []
for node in range(nodes):
    host = add_host(str(node), 1e9)
    add_way(f"to {node}", network.access[node] / 1e6, None, host)
    add_way(f"from {node}", 0, host, None)
    hosts.append(host)
zone.seal()
mailboxes = [Mailbox.by_name(str(node)) for node in range(nodes)]
seen = [0] * nodes
deliveries = duplicates = delivered_us_sum = 0


def tell(complete: bool) -> None:
    name = f"simgrid {simgrid.simgrid_version}"
    watch.tell(name, network, deliveries, duplicates, delivered_us_sum, complete)
    # Ending thousands of actors one by one is no part of what is measured.
    os._exit(0)


def forward(node, bit, sender):
    for neighbour in neighbours[node]:
        if neighbour != sender:
            # Whoever receives it drops what SimGrid keeps of it with it: a detached message would stand in one list with
            # all others that are on their way, and be looked for there.
            payload = [bit, node, None]
            payload[2] = mailboxes[neighbour].put_async(payload, 1)


def receive(node, bit, sender):
    global deliveries, duplicates, delivered_us_sum
    if seen[node] & bit:
        duplicates += 1
    else:
        seen[node] |= bit
        deliveries += 1
        delivered_us_sum += round(Engine.clock * 1e6)
        forward(node, bit, sender)
    if (deliveries + duplicates) % LOOK_EVERY == 0 and watch.processor_seconds() > seconds:
        tell(False)


def live(node):
    mailbox = mailboxes[node]
    mailbox.set_receiver(Actor.self())
    while True:
        bit, sender, _way = mailbox.get()
        receive(node, bit, sender)


def publish():
    order = sorted((at_us, message, node) for message, (node, at_us) in enumerate(publications))
    for at_us, message, node in order:
        this_actor.sleep_until(at_us / 1e6)
        receive(node, 1 << message, node)
    this_actor.sleep_until(END_S)
    tell(True)


for node in range(nodes):
    Actor.create(str(node), hosts[node], live, node)
Actor.create("publish", hosts[0], publish)
gc.disable()
watch = Watch()
engine.run()
