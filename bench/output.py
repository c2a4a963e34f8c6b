"""How fast the ranks' output passes prefix and files: ours beside torchrun's `--tee 3`, in turns, in one run.

    python bench/output.py [--torchrun .venv-torch/bin/torchrun] [--repetitions 5] [--only 8:short:pipe]

All ranks begin together and write their lines in blocks of 64 KiB as fast as they are taken. The clock runs from the
first rank's first write to the launcher's end, so that everything is in its files and with its reader. Every byte and
line is counted and has to be there; lines that were torn (both do that to a writer that stops within a line for long)
are counted too. Medians, with the least and the most; MB are 10^6 bytes of the ranks'. CPU: of the launcher and its
ranks together, less a run with next to no output; unlike the rates it hardly depends on who else uses the machine.
`BENCH_DIR` is where the files are. Ends with 1 when 8 ranks are not twice as fast as torchrun's.
"""

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
RANK = """
import os, sys, time
size, total, folder, ranks = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(os.environ["WORLD_SIZE"])
line = b"step 0123 loss 2.3456 lr 0.0001 tok/s 9" if size == 40 else b"x" * (size - 1)
block = (line + b"\\n") * (65536 // size)
open(f"{folder}/here-{os.environ['RANK']}", "w").close()
while sum(name.startswith("here-") for name in os.listdir(folder)) < ranks:
    time.sleep(0.002)
with open(f"{folder}/began-{os.environ['RANK']}", "w") as file:
    file.write(str(time.monotonic_ns()))
for _ in range(total // len(block)):
    left = memoryview(block)
    while left:
        left = left[os.write(1, left):]
"""
SHORT, LONG = 40, 1000


def blocks(size: int, total: int) -> tuple[int, int]:
    """Bytes and lines of one rank."""
    lines = (65536 // size) * (total // (65536 // size * size))
    return lines * size, lines


def once(command: list[str], n: int, size: int, total: int, where: str, prefixed: int) -> tuple[float, int, float]:
    """Seconds of one run, how many lines were torn (a prefix within a line), and seconds of all its processes on a CPU."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_DIR")) as folder:
        program = Path(folder) / "rank.py"
        program.write_text(RANK)
        words = [word.replace("FOLDER", folder) for word in command]
        words += [str(program), str(size), str(total), folder]
        null = os.open(os.devnull, os.O_RDWR)
        seen = newlines = 0
        job = subprocess.Popen(words, stdin=null, stdout=subprocess.PIPE if where == "pipe" else null, stderr=null)
        if job.stdout is not None:
            fd = job.stdout.fileno()
            while data := os.read(fd, 1 << 20):
                seen += len(data)
                newlines += data.count(b"\n")
            job.stdout.close()
        status = job.wait()
        ended = time.monotonic_ns()
        began = min(int((Path(folder) / f"began-{rank}").read_text()) for rank in range(n))
        logs = [path for path in Path(folder).rglob("stdout.log") if path.stat().st_size]
        kept = sum(path.stat().st_size for path in logs)
        os.close(null)
    size_of_one, lines_of_one = blocks(size, total)
    wanted = n * size_of_one + n * lines_of_one * prefixed
    assert status == 0, f"{words[0]} ended with {status}"
    assert kept == n * size_of_one, f"{kept} bytes in the files of {words[0]}, not {n * size_of_one}"
    torn = 0
    if where == "pipe":
        assert newlines >= n * lines_of_one, f"{newlines} lines of {words[0]}, not {n * lines_of_one}"
        assert seen >= wanted, f"{seen} bytes of {words[0]}, not {wanted}"
        torn = max(newlines - n * lines_of_one, (seen - wanted) // max(prefixed, 1))
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (ended - began) / 1e9, torn, cpu


def commands(n: int, torchrun: str | None) -> dict[str, tuple[list[str], int]]:
    """Of each launcher its first words, with FOLDER in place of a folder, and how many bytes it puts before each line."""
    ours = [sys.executable, "-m", "rankguard", "run", "-n", str(n), "--run-dir", "FOLDER/run", "-q", "--log-max", "1G"]
    found = {"rankguard": (ours, len("[0] ") if n > 1 else 0)}
    if torchrun is not None:
        theirs = [torchrun, "--standalone", "--nproc-per-node", str(n), "--tee", "3", "--log-dir", "FOLDER/logs"]
        found["torchrun"] = (theirs, len("[default0]:"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--torchrun", default=str(ROOT / ".venv-torch/bin/torchrun"))
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--megabytes", type=float, default=12, help="of each rank; long lines three times as much")
    parser.add_argument("--only", default="", help="ranks:short|long:null|pipe")
    asked = parser.parse_args()
    if shutil.which(asked.torchrun) is None:
        print(f"{asked.torchrun} is not there (make test-torch installs it): ours alone", file=sys.stderr)
        asked.torchrun = None
    print(f"{asked.repetitions} runs each, in turns; {os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}")
    print(
        f"{'ranks':>5} {'lines':>6} {'to':>5}  {'':9} {'MB/s':>7} {'min':>7} {'max':>7} {'lines/s':>11}  {'times':>5}"
        "  torn  CPU s/GB"
    )
    worst = float("inf")
    for n in (8, 1):
        for name, size in (("short", SHORT), ("long", LONG)):
            for where in ("null", "pipe"):
                if asked.only in ("", f"{n}:{name}:{where}"):
                    ratio = row(asked, n, name, size, where)
                    worst = min(worst, ratio) if n == 8 else worst
    if asked.torchrun is None or worst == float("inf"):
        return 0
    print(f"8 ranks: at least {worst:.1f} times as fast; required: 2: {'met' if worst >= 2 else 'NOT MET'}")
    return 0 if worst >= 2 else 1


def row(asked: argparse.Namespace, n: int, name: str, size: int, where: str) -> float:
    total = int(asked.megabytes * 1e6) * (1 if n == 8 else 4) * (3 if name == "long" else 1)
    launchers = commands(n, asked.torchrun)
    took: dict[str, list[float]] = {launcher: [] for launcher in launchers}
    cpus: dict[str, list[float]] = {launcher: [] for launcher in launchers}
    torn = dict.fromkeys(launchers, 0)
    for _ in range(asked.repetitions):
        for launcher, (command, prefixed) in launchers.items():
            seconds, some, cpu = once(command, n, size, total, where, prefixed)
            _seconds, _some, idle = once(command, n, size, 65536, where, prefixed)
            took[launcher].append(seconds)
            cpus[launcher].append(cpu - idle)
            torn[launcher] += some
    size_of_one, lines_of_one = blocks(size, total)
    medians = {launcher: statistics.median(seconds) for launcher, seconds in took.items()}
    ratio = medians["torchrun"] / medians["rankguard"] if "torchrun" in medians else float("nan")
    for launcher, runs in took.items():
        rates = [n * size_of_one / 1e6 / s for s in (medians[launcher], max(runs), min(runs))]
        lines = n * lines_of_one / medians[launcher]
        used = statistics.median(cpus[launcher]) / (n * size_of_one / 1e9)
        times = f"{ratio:.1f}" if launcher == "rankguard" else ""
        cells = f"{n:>5} {name:>6} {where:>5}  {launcher:9}"
        print(
            f"{cells} {rates[0]:>7.0f} {rates[1]:>7.0f} {rates[2]:>7.0f} {lines:>11,.0f}  {times:>5}"
            f"  {torn[launcher]:>4}  {used:>8.2f}",
            flush=True,
        )
    return ratio


if __name__ == "__main__":
    sys.exit(main())
