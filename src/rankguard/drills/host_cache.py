"""A rank program: fill a host cache, one rank after another, as an engine does that pins memory while it loads.

`host_cache.py FOLDER MIB LIMIT`: rank 0 keeps loading and never gets to its cache; rank r fills MIB MiB once rank r - 1
has filled its own (a FIFO in FOLDER hands the turn on), then waits for the others. LIMIT (MiB, 0 for none) is set as
RLIMIT_AS where no memory cgroup can be made.
"""

import mmap
import resource
import signal
import sys

import rankguard

STEP = 4 << 20


def main() -> None:
    """Load, wait for the turn, fill, hand on, wait."""
    folder, size, limit = sys.argv[1], int(sys.argv[2]) << 20, int(sys.argv[3]) << 20
    if limit:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    me = rankguard.this_rank()
    me.status("loading weights")
    if me.rank == 0:
        with open(f"{folder}/1", "w"):
            pass
        signal.pause()
    with open(f"{folder}/{me.rank}"):
        pass
    print(f"allocating host cache: {size / 2**20:.0f} MiB", flush=True)
    cache = []
    for done in range(0, size, STEP):
        me.status("allocating host cache", done >> 20, size >> 20)
        block = mmap.mmap(-1, STEP, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) if not limit else bytearray(STEP)
        block[::4096] = b"x" * (STEP // 4096)
        cache.append(block)
    print("host cache is full", flush=True)
    if me.rank + 1 < me.world_size:
        with open(f"{folder}/{me.rank + 1}", "w"):
            pass
    signal.pause()


if __name__ == "__main__":
    main()
