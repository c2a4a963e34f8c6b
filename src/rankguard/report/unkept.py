"""The log files of a rank that has the terminal itself: one line that says why there is nothing in them."""

from rankguard.jobspec import JobSpec
from rankguard.report.logfile import LogFile
from rankguard.report.output import STREAMS, log_path


def say_unkept(spec: JobSpec) -> None:
    """Write the line where a reader of the debug rank's output will look for it."""
    rank = spec.debug_rank
    if rank is None or spec.run_dir is None or spec.log_max == 0:
        return
    line = f"[rankguard: rank {rank} had the terminal (--debug {rank}): what it printed was not kept]\n"
    for stream in STREAMS:
        log = LogFile(log_path(spec.run_dir, rank, 0, stream), max(spec.log_max, len(line)))
        log.write(line.encode())
        log.close()
