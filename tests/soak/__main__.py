"""`python -m tests.soak [SECONDS]`: a large and restless tree under `rankguard watch`; what the watching costs, and whether
anything is called a failure that is none. `make soak` runs it for ten minutes.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

STANDING, RATE, SECONDS = 1000, 200, 600
SHARE = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")
SOURCE = Path(__file__).with_name("tree.c")


class Soaked(NamedTuple):
    """`share`: of one processor, all processes of rankguard together, once the tree stands. `status`: of the command."""

    share: float
    status: int
    outcome: str
    reported: int
    joined: int
    facts: int
    rss_mib: float
    spawned: int


def soak(folder: Path, seconds: float, standing: int = STANDING, rate: int = RATE, *options: str) -> Soaked:
    """Watch the tree for so long, then ask it to end."""
    binary, run = folder / "tree", folder / "run"
    subprocess.run(["gcc", "-O1", "-o", binary, SOURCE], check=True)
    words = [sys.executable, "-m", "rankguard", "watch", "--run-dir", str(run), *options, "--", str(binary)]
    with open(folder / "err", "w") as err:
        command = [*words, str(standing), str(rate)]
        watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=err, stdin=subprocess.DEVNULL)
        try:
            assert watch.stdout is not None
            assert watch.stdout.readline() == b"up\n", (folder / "err").read_text()
            time.sleep(min(5.0, seconds / 4))  # the first look at a thousand processes is no steady state
            ours = _ours(watch.pid)
            forks, cpu, began = _forks(), _cpu(ours), time.monotonic()
            time.sleep(seconds)
            assert watch.poll() is None, (folder / "err").read_text()
            cpu, lasted, forks = _cpu(ours) - cpu, time.monotonic() - began, _forks() - forks
            rss = sum(_rss(pid) for pid in ours)
        finally:
            watch.send_signal(signal.SIGTERM)
            status = watch.wait(60)
            watch.stdout.close()
    verdict = json.loads((run / "verdict.json").read_text())
    facts = [line for line in (run / "events.jsonl").read_text().splitlines() if '"fact"' in line[:200]]
    joined = sum('"Joined"' in line for line in facts)
    return Soaked(cpu / lasted, status, verdict["outcome"], len(verdict["reported"]), joined, len(facts), rss, forks)


def _ours(front: int) -> list[int]:
    """Front, warden and supervisor, by their names: each is the child of the one before."""
    found = [front]
    for _ in range(2):
        with open(f"/proc/{found[-1]}/task/{found[-1]}/children") as children:
            found.append(int(children.read().split()[0]))
    return found


def _cpu(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / _TICKS


def _rss(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def _forks() -> int:
    """Of the whole machine (proc_stat(5))."""
    lines = Path("/proc/stat").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("processes "))


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory() as folder:
        soaked = soak(Path(folder), seconds, STANDING, RATE, *sys.argv[2:])
        print(f"{STANDING} processes, {soaked.spawned / seconds:.0f} forks a second on this machine, {seconds:g} s:")
        print(
            f"  {soaked.share:.1%} of a processor, {soaked.rss_mib:.0f} MiB, {soaked.joined} took part, {soaked.facts} facts"
        )
        print(f"  {soaked.outcome}, status {soaked.status}, {soaked.reported} reported")
        print((Path(folder) / "err").read_text()[-600:])
    good = soaked.share < SHARE and soaked.outcome == "interrupted" and soaked.joined == 8
    print("good" if good else "NOT as it should be")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
