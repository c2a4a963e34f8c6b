"""What a fact costs in the core, from 10 to 100,000 simulated ranks. `python bench/core_cost.py [--sizes 10,1000]`

Each job is spawned, becomes ready, loses a rank, is judged, ends and is reaped. Only `step` is timed, and only our own
time on the processor: facts and jobs are made before, other load does not count. Required: 20 µs a fact at most, and
2.5 times as much for the largest job as for the smallest (a cost that grows with the number of ranks would show there).
Ends with 1 when that is not met.
"""

import argparse
import gc
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

from rankguard.core.job import Job
from rankguard.core.machine import step
from rankguard.facts import Exited, JobStarted, Judged, Looked, Ready, Reaped, Signalled, Spawned, TreeEmpty
from rankguard.model import Ending, Memory
from rankguard.testing.player import new_spec

SIZES = (10, 100, 1_000, 10_000, 100_000)
REPETITIONS = 10
LEAST_FACTS = 20_000
LIMIT_US, LIMIT_RATIO = 20.0, 2.5


def life(nprocs: int) -> list:
    """All facts of a job in which the rank in the middle is killed."""
    ranks, culprit = range(nprocs), nprocs // 2
    killed = Ending("signal", signal="SIGKILL", number=9)
    ended = Ending("signal", signal="SIGTERM", number=15)
    others = [rank for rank in ranks if rank != culprit]
    return [
        JobStarted(0.0, 1_790_000_000.0),
        *(Spawned(1.0, rank, 1000 + rank) for rank in ranks),
        *(Ready(2.0, rank) for rank in ranks),
        Exited(3.0, culprit, killed),
        Looked(3.0, (), tuple((rank, Memory(1 << 30)) for rank in others)),
        Signalled(3.0, 15, nprocs - 1),
        Judged(3.0, culprit, "killed", 137),
        Reaped(3.0, culprit, 1 << 30),
        *(fact for rank in others for fact in (Exited(4.0, rank, ended), Reaped(4.0, rank, 1 << 30))),
        TreeEmpty(5.0),
    ]


def measure(nprocs: int, repetitions: int = REPETITIONS) -> list[float]:
    """Microseconds per fact, one value a repetition."""
    facts = life(nprocs)
    jobs = max(1, LEAST_FACTS // len(facts))
    took = []
    for repetition in range(repetitions + 1):
        fresh = [Job(new_spec(nprocs)) for _ in range(jobs)]
        gc.collect()
        gc.freeze()  # what was made before is no business of the collector, as in a supervisor that has started
        began = time.process_time()
        for job in fresh:
            for fact in facts:
                step(job, fact)
        spent = time.process_time() - began
        gc.unfreeze()
        assert all(job.finished for job in fresh)
        if repetition:  # the first one warms up
            took.append(spent / (jobs * len(facts)) * 1e6)
    return took


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of ranks, with commas between")
    sizes = [int(size) for size in parser.parse_args().sizes.split(",")]

    print(f"{'ranks':>8} {'facts':>8}   µs per fact: median     min     max   ({REPETITIONS} repetitions)")
    medians = []
    for nprocs in sizes:
        took = measure(nprocs)
        medians.append(statistics.median(took))
        print(f"{nprocs:>8,} {4 * nprocs + 5:>8,} {medians[-1]:>21.2f} {min(took):>7.2f} {max(took):>7.2f}")
    ratio = medians[-1] / medians[0]
    met = max(medians) <= LIMIT_US and ratio <= LIMIT_RATIO
    print(
        f"largest to smallest: {ratio:.2f}; required: {LIMIT_US:.0f} µs and {LIMIT_RATIO}: {'met' if met else 'NOT MET'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
