"""Files of PyTorch's flight recorder: what is read of them, and that a file of the job can do nothing to us."""

import json
import os
import pickle
import subprocess
import sys
import time

import pytest

from rankguard.linux import flightrecorder


def entry(seq, op, *, group="0", p2p=False, frames=()):
    """As torch 2.13 writes one; the rest of its fields decides nothing here."""
    told = [{"name": name, "filename": file, "line": line} for name, file, line in frames]
    return {
        "frames": told, "process_group": (group, "default_pg"), "collective_seq_id": seq, "is_p2p": p2p,
        "profiling_name": f"nccl:{op}", "state": "scheduled", "input_sizes": [[4]], "time_created_ns": 1 << 60,
    }  # fmt: skip


def record(*entries, enqueued=3, completed=2):
    status = {"0": {"last_enqueued_collective": enqueued, "last_started_collective": -1,
                    "last_completed_collective": completed}}  # fmt: skip
    return {"version": "2.10", "pg_status": status, "pg_config": {}, "entries": list(entries)}


LIBRARY = ("all_reduce", "/venv/site-packages/torch/distributed/distributed_c10d.py", 3245)
TOLD = [["0", 3, 2, [[1, "all_reduce", "scheduled", "train.py:40 step"], [2, "barrier", "scheduled", None]]]]


def saved(path, what):
    path.write_bytes(what if isinstance(what, bytes) else pickle.dumps(what, protocol=2))
    return str(path)


def test_a_record(tmp_path):
    own = ("step", "/app/train.py", 40)
    path = saved(
        tmp_path / "record",
        record(entry(1, "all_reduce", frames=(LIBRARY, own)), entry(1, "send", p2p=True), entry(2, "barrier")),
    )

    assert flightrecorder.read(path, 0) == TOLD


def test_json_is_read_as_well(tmp_path):
    whole = record(entry(1, "all_reduce", frames=(("step", "/app/train.py", 40),)), entry(2, "barrier"))

    assert flightrecorder.read(saved(tmp_path / "record", json.dumps(whole).encode()), 0) == TOLD


def test_of_a_long_one_the_end(tmp_path):
    path = saved(tmp_path / "record", record(*(entry(n, "all_reduce") for n in range(2000))))

    ((_group, _enqueued, _completed, entries),) = flightrecorder.read(path, 0)
    assert [seq for seq, *_ in entries] == list(range(1992, 2000))


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harmed",)


def test_nothing_of_the_job_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path / "record", record() | {"entries": Harmful()})

    with pytest.raises(pickle.UnpicklingError, match="is no part of a flight record"):
        flightrecorder.read(path, 0)
    assert not (tmp_path / "harmed").exists()


def test_older_files_others_files_and_what_is_no_file(tmp_path):
    old = saved(tmp_path / "old", record())
    fifo, folder = tmp_path / "fifo", tmp_path / "folder"
    os.mkfifo(fifo)
    folder.mkdir()

    with pytest.raises(OSError, match="no record of this run"):
        flightrecorder.read(old, time.time() + 60)
    for path in (fifo, folder, tmp_path / "none"):
        with pytest.raises(OSError):  # which one is the kernel's word
            flightrecorder.read(str(path), 0)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"\x80\x02N.", b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f", b"\x80\x02]" + b"]" * 100_000 + b".",
     pickle.dumps(record(entry("x", 1))), pickle.dumps({"entries": [3]}), b"\x80\x02c__builtin__\neval\n."],
    ids=["empty", "half", "none", "huge", "deep", "wrong types", "wrong shape", "eval"],
)  # fmt: skip
def test_the_program_survives_anything(tmp_path, content):
    """And tells of the good file beside it."""
    bad, good = saved(tmp_path / "bad", content), saved(tmp_path / "good", record(entry(2, "barrier")))
    done = subprocess.run(
        [sys.executable, "-I", "-S", flightrecorder.__file__, "0", f"0={bad}", f"1={good}", f"2={tmp_path}/none"],
        capture_output=True, timeout=60, check=False, cwd=tmp_path,
    )  # fmt: skip

    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert told[-1] == {"rank": 1, "groups": [["0", 3, 2, [[2, "barrier", "scheduled", None]]]]}
    assert len(told) == 1 or told[0]["groups"] == []
