"""Where there is too little of everything: an engine under `watch` runs all the same, and ends with its own status."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.containers.box import needs_stranger
from tests.failopen.kept import ENGINE, Engine, whole
from tests.others import AS_STRANGER

FEW = [20, 24, 32, 40, 64]
QUICK = {24}


@pytest.mark.parametrize("limit", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in FEW])
def test_few_file_descriptors(limit):
    """Below 35 it is not watched, and that is said."""
    with Engine() as engine:
        limited = ["prlimit", f"--nofile={limit}", sys.executable, "-m", "rankguard", "watch"]
        engine.watch(launcher=limited).up()
        engine.let_end()

        status, out, err = engine.result()

        assert (status, whole(out)) == (7, True), err
        assert ("started without being watched" in err) == (limit < 40), err


@pytest.mark.slow
@pytest.mark.parametrize("limit", [9, 16])
def test_too_few_for_any_process(limit):
    """The engine takes our place, and is as without us: what it leaves behind, too."""
    with Engine() as engine:
        limited = ["prlimit", f"--nofile={limit}", sys.executable, "-m", "rankguard", "watch"]
        engine.watch(launcher=limited).up()
        root = engine.root
        engine.let_end()

        assert (engine.front.wait(30), root) == (7, engine.front.pid)
        engine.kill()
        out, err = engine.front.communicate()
        assert whole(out.decode())
        assert b"the engine takes the place of rankguard" in err


@pytest.mark.skipif(os.geteuid() != 0, reason="a file system can be mounted by root alone")
@pytest.mark.parametrize("kill", [pytest.param(False, marks=pytest.mark.slow), True], ids=["", "supervisor-killed"])
def test_a_full_disk(tmp_path, kill):
    """64 KiB for the run's files, all of it taken."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(tmp_path)], check=True)
    try:
        with Engine() as engine:
            engine.watch("--run-dir", f"{tmp_path}/run").up()
            with pytest.raises(OSError, match="No space left"), open(f"{tmp_path}/full", "wb", buffering=0) as file:
                while file.write(b"x" * 4096):
                    pass
            if kill:
                engine.kill("supervisor")
            engine.let_end()

            status, out, err = engine.result()

            assert (status, engine.whole(out)) == (7, True), err
            assert "rankguard: exit 7 exit-code proven" in err.splitlines()[-1]
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("closed", [">&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(closed):
    with Engine() as engine:
        script = f'exec "$@" {closed}'
        engine.watch(launcher=["/bin/sh", "-c", script, "sh", sys.executable, "-m", "rankguard", "watch"]).up()
        engine.kill("supervisor")
        engine.let_end()

        assert engine.result()[0] == 7


@pytest.mark.slow
def test_a_reader_that_never_reads():
    """The engine waits for it, as it would without us; it is not for us to let it go on, or to end it."""
    read, write = os.pipe()
    with Engine() as engine:
        engine.watch(stdout=write, stderr=write).up()
        os.close(write)
        engine.kill("supervisor")
        engine.let_end()

        engine.until_there("ended")
        engine.front.wait(30)

        assert engine.front.returncode == 7
        os.close(read)


@pytest.mark.slow
@needs_stranger
def test_of_another_user():
    with Engine() as engine:
        for path in (engine.top, engine.folder, engine.home, engine.tmp):
            os.chmod(path, 0o777)
        engine.watch(launcher=[*AS_STRANGER, sys.executable, "-m", "rankguard", "watch"]).up()
        engine.kill("supervisor")
        engine.let_end()

        status, out, err = engine.result()

        assert (status, engine.whole(out)) == (7, True), err


@pytest.mark.slow
def test_an_engine_that_cannot_be_executed():
    """What is not ours to degrade: the same words as ever."""
    with Engine() as engine:
        engine.start([sys.executable, "-m", "rankguard", "watch", "--", "./not-there"])

        status, _out, err = engine.result()

        assert (status, "unable to execute `./not-there`" in err) == (127, True), err
        assert Path(ENGINE).exists()


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace can be made by root alone")
@pytest.mark.parametrize("victims", [("supervisor",), ("warden", "supervisor"), ("warden",)], ids="+".join)
@pytest.mark.parametrize("asked", [False, True], ids=["", "asked-to-end"])
def test_as_pid_1(victims, asked):
    with Engine() as engine:
        inside = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
        engine.watch(launcher=[*inside, sys.executable, "-m", "rankguard", "watch"])
        engine.wrapped = True
        engine.up().kill(*victims)
        if asked:
            os.kill(engine.ours()["front"], signal.SIGTERM)
        else:
            engine.let_end()

        status, out, err = engine.result()

        assert status == (143 if asked else 7), err
        assert asked or engine.whole(out)
        assert (engine.verdict()["outcome"], engine.traces()) == ("interrupted" if asked else "failed", [])
