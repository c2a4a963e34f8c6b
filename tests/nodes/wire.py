"""A bad line: carries frames between two interfaces, each way late by DELAY ms, LOSS % of them never, at most RATE bytes/s.

`python wire.py A B DELAY LOSS RATE` (RATE 0: as fast as they come). As `tc netem` does it, for kernels that have none.
What waits is bounded as there: the 1,001st frame is dropped. Offloads are carried along (PACKET_VNET_HDR, packet(7)), so
that a checksum that the sender left to its card is not wrong at the other end.
"""

import heapq
import itertools
import random
import select
import socket
import sys
import time

SOL_PACKET, PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING = 263, 15, 23  # <linux/if_packet.h>
ETH_P_ALL = 3
WAITING = 1000
LARGEST = 10 + 14 + 65536 + 256


def _end(interface: str) -> socket.socket:
    end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    end.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
    end.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    end.bind((interface, ETH_P_ALL))
    end.setblocking(False)
    return end


def main(a: str, b: str, delay: float, loss: float, rate: float) -> None:
    ends = (_end(a), _end(b))
    across = {ends[0]: ends[1], ends[1]: ends[0]}
    free = dict.fromkeys(ends, 0.0)  # since when the line that leads there has been idle
    on_the_way: list[tuple[float, int, socket.socket, bytes]] = []
    count = itertools.count()
    print("carrying", flush=True)
    while True:
        limit = None if not on_the_way else max(0.0, on_the_way[0][0] - time.monotonic())
        for end in select.select(ends, (), (), limit)[0]:
            frame, to = end.recv(LARGEST), across[end]
            if random.random() * 100 < loss or len(on_the_way) >= WAITING:
                continue
            free[to] = max(free[to], time.monotonic()) + (len(frame) / rate if rate else 0)
            heapq.heappush(on_the_way, (free[to] + delay / 1000, next(count), to, frame))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _due, _number, to, frame = heapq.heappop(on_the_way)
            try:
                to.send(frame)
            except OSError:  # the interface is down or its queue full: a line loses frames
                pass


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(float, sys.argv[3:6]))
