"""Row j. 8 ranks' output through prefix and files at once: MB/s and lines/s, beside torchrun's `--tee 3` (`output.py`).

All ranks begin together and write as fast as they are taken, lines of 40 and of 1,000 bytes; with a prefix to a pipe that
the bench reads, and as they are into a file each. The clock runs from the first rank's first write to the launcher's end;
every byte and line is counted and has to be there. MB are 10^6 bytes of the ranks' own. `output.py` alone also has one
rank, no reader, and seconds of CPU.
"""

from bench import output
from bench.measure import Contender, Line, times
from bench.setting import NPROCS, Setting

LIMIT = 2.0
MEGABYTES = {"short": (output.SHORT, 6), "long": (output.LONG, 30)}
"""Bytes of a line, and megabytes of each rank: a repeat takes some seconds with torchrun."""


def run(setting: Setting) -> list[Line]:
    lines = []
    for name, (size, megabytes) in MEGABYTES.items():
        total = 500_000 if setting.quick else megabytes * 1_000_000
        bytes_, count = (NPROCS * each for each in output.blocks(size, total))

        def once(launcher: str, size=size, total=total, bytes_=bytes_, count=count) -> dict[str, float]:
            torchrun = str(setting.peers.torch() / "torchrun") if launcher == "torchrun" else None
            command, prefixed = output.commands(NPROCS, torchrun)[launcher]
            seconds, _torn, _cpu = output.once(command, NPROCS, size, total, "pipe", prefixed)
            return {"MB/s": bytes_ / 1e6 / seconds, "lines/s": count / seconds}

        found = setting.turns(
            [
                Contender("rankguard", lambda _, once=once: once("rankguard"), setting.repeats(10)),
                Contender("torchrun", lambda _, once=once: once("torchrun"), setting.repeats(10)),
            ]
        )
        for unit in ("MB/s", "lines/s") if name == "short" else ("MB/s",):
            ours, theirs = found["rankguard"].series(unit), found["torchrun"].series(unit)
            multiple = times(ours, theirs)
            what = f"8 ranks' output through prefix and files, lines of {size:,} bytes"
            reached = None if multiple is None else multiple >= LIMIT
            lines.append(Line("j", what, unit, ours, [theirs], f"≥ {LIMIT:.0f} × torchrun", reached))
    return lines
