"""An all-to-all exchange in the simulator SimGrid (LGPL, Debian's python3-simgrid), for the Python
that has it: `python3 simgrid_exchange.py HOSTS BYTES LEAF OVER` prints the simulated seconds.

Hosts are in a fat tree, LEAF on a switch; the links between switches have 1/OVER of the bandwidth
of all hosts below. All hosts send to all at once.
"""

import sys

from simgrid import (
    Actor,
    ClusterCallbacks,
    Comm,
    Engine,
    FatTreeParams,
    Link,
    NetZone,
)

BANDWIDTH = 50e9  # bytes per second
LATENCY = 2e-6  # of a link

# a flow has the whole bandwidth of its links, and none is lost to the way back
FLAGS = ("network/model:CM02", "network/crosstraffic:0", "network/TCP-gamma:0")


def main(hosts, n_bytes, leaf, over):
    """BYTES go from each host to each other one."""
    engine = Engine(["exchange", *(f"--cfg={f}" for f in FLAGS), "--log=root.threshold:error"])
    if hosts == leaf:
        shape = FatTreeParams(1, [hosts], [1], [1])
    else:
        shape = FatTreeParams(2, [leaf, hosts // leaf], [1, leaf // over], [1, 1])
    makers = ClusterCallbacks(
        lambda zone, place, i: (zone.create_host(f"host {i}", 1e9).netpoint, None), None, None
    )
    duplex = Link.SharingPolicy.SPLITDUPLEX
    NetZone.create_fatTree_zone("tree", None, shape, makers, BANDWIDTH, LATENCY, duplex).seal()

    def send(rank):
        messages = [
            Comm.sendto_async(engine.all_hosts[rank], engine.all_hosts[(rank + s) % hosts], n_bytes)
            for s in range(1, hosts)
        ]
        for message in messages:
            message.wait()

    for rank in range(hosts):
        Actor.create(f"rank {rank}", engine.all_hosts[rank], send, rank)
    engine.run()
    sys.stdout.write(f"{engine.clock}\n")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
