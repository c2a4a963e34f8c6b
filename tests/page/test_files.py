"""The files that a page is made of: looks at memory within bounds, the ends of logs, and whatever else may lie there."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.page.made import GIB

from rankguard.page import logs
from rankguard.page.course import NAME, points
from rankguard.report.files import RunFiles
from rankguard.report.logfile import LogFile
from rankguard.report.logtail import lines, tail
from rankguard.supervisor.memorylog import MemoryLog


def _add(log: MemoryLog, at: float, ranks: int = 8, heard: int = 0) -> None:
    log.add(at, {rank: GIB + rank for rank in range(ranks)}, GIB, 2 * GIB, "memory.max of /job", heard)


def test_a_long_run_s_looks_stay_small_and_the_newest_are_all_there(tmp_path: Path) -> None:
    log = MemoryLog(RunFiles(str(tmp_path)), 8, bound=64 << 10)
    largest = 0
    for second in range(5000):
        _add(log, float(second), heard=1 << (second % 8))
        largest = max(largest, (tmp_path / NAME).stat().st_size)
    log.close()

    told = points((tmp_path / NAME).read_bytes().splitlines())
    assert largest < 66 << 10
    assert (told[0].at, told[-1].at) == (0.0, 4999.0)
    assert [point.at for point in told[-9:]] == [float(at) for at in range(4991, 5000)]
    assert told[-1].held[3] == GIB
    assert sorted(os.listdir(tmp_path)) == ["events.jsonl", NAME]


def test_who_was_heard_in_a_look_that_was_left_out_is_heard_in_the_next(tmp_path: Path) -> None:
    log = MemoryLog(RunFiles(str(tmp_path)), 1, bound=8 << 10)
    for second in range(2000):
        _add(log, float(second), ranks=1, heard=int(second == 700))
    log.close()

    told = points((tmp_path / NAME).read_bytes().splitlines())
    [heard] = [n for n, point in enumerate(told) if point.heard]
    assert told[heard - 1].at < 700 <= told[heard].at


@pytest.mark.slow
def test_a_thousand_ranks_and_a_week(tmp_path: Path) -> None:
    """A look every 5 minutes in place of every second: what is thinned depends on sizes and ages alone."""
    log = MemoryLog(RunFiles(str(tmp_path)), 1000)
    for look in range(0, 604_800, 1500):
        _add(log, float(look), ranks=1000)
    assert (tmp_path / NAME).stat().st_size < 4.2e6


def test_without_a_folder_it_is_told_all_the_same() -> None:
    log = MemoryLog(RunFiles(None), 1)
    said: list[bytes] = []
    log.tell = said.append
    _add(log, 1.0, ranks=1, heard=1)
    assert (log.last_at, json.loads(said[0])["heard"]) == (1.0, "1")


def test_a_full_disk_costs_lines_and_no_line_is_half_there(tmp_path: Path) -> None:
    """A limit on the size of files is as good as a full disk, which only root can make; SIGXFSZ is ignored by Python."""
    program = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from tests.page.test_files import MemoryLog, RunFiles, _add
files = RunFiles({str(tmp_path)!r})
log = MemoryLog(files, 8)
for second in range(20):
    if second == 10: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    if second == 15: resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    _add(log, float(second))
print(files.error)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    ats = [json.loads(line)["at"] for line in (tmp_path / NAME).read_text().splitlines()]
    assert ats == [*range(10), *range(15, 20)]
    assert done.stdout == f"the run's files are not complete: `{NAME}`: {os.strerror(errno.EFBIG)}\n"


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "linked folder"])
def test_what_is_no_file_of_ours_is_neither_followed_nor_waited_for(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "run" / "rank-0" / "attempt-0"
    secret = tmp_path / "elsewhere"
    secret.mkdir()
    (secret / "stdout.log").write_text("not yours\n")
    if kind == "linked folder":
        place.parent.mkdir(parents=True)
        place.symlink_to(secret)
    else:
        place.mkdir(parents=True)
        path = place / "stdout.log"
        {"fifo": lambda: os.mkfifo(path), "link": lambda: path.symlink_to(secret / "stdout.log"), "folder": path.mkdir}[
            kind
        ]()

    assert tail(str(tmp_path / "run"), "rank-0/attempt-0/stdout.log", 1000) is None
    assert logs.log(str(tmp_path / "run"), 0, 0, 1 << 20, str)["streams"] == {}
    assert list(lines(str(place / "stdout.log"), 1000)) == ([] if kind != "linked folder" else [b"not yours\n"])


def test_the_end_of_a_file_in_whole_lines(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(b"key=secretsecret\nsecond \xff\nlast")

    assert tail(str(tmp_path), "a.log", 1000) == ("key=secretsecret\nsecond \ufffd\nlast", False)
    assert tail(str(tmp_path), "a.log", 20) == ("second \ufffd\nlast", True)
    assert tail(str(tmp_path), "a.log", 2) == ("", True)
    assert tail(str(tmp_path), "missing.log", 2) is None


def test_the_newest_part_of_a_stream_that_outgrew_its_bound(tmp_path: Path) -> None:
    """Also while it is still written round and round."""
    log = LogFile(str(tmp_path / "a.log"), 8000)
    for number in range(1000):
        log.write(b"line %d\n" % number)
    found = tail(str(tmp_path), "a.log", 50, 8000)
    assert found is not None
    assert found.text == "line 995\nline 996\nline 997\nline 998\nline 999\n"

    log.finish()
    found = tail(str(tmp_path), "a.log", 50, 8000)
    assert found is not None
    assert found.text.endswith("line 999\n")


def test_what_was_kept_is_checked_whoever_wrote_it() -> None:
    stream = {"lines": ["a"], "cut": False, "path": None}
    good = {"rank": 0, "attempt": 0, "streams": {"stdout": stream}}
    bad = [
        None, [], {}, good | {"rank": "0"}, good | {"streams": []}, good | {"streams": {"stdin": stream}},
        good | {"streams": {"stdout": stream | {"lines": [1]}}}, good | {"streams": {"stdout": stream | {"cut": 0}}},
    ]  # fmt: skip
    assert [logs.is_log(each) for each in (good, *bad)] == [True] + [False] * len(bad)
