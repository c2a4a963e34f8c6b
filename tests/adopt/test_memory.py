"""A true OOM kill of a process that somebody else started, in a memory group of its host's own."""

import json
import os
import subprocess
import sys

import pytest

from rankguard.linux.hierarchies import own_groups

LIMIT = 128 << 20

HOST = """
import os, sys
with open(sys.argv[1] + "/cgroup.procs", "w") as file:
    file.write(str(os.getpid()))
import rankguard
from rankguard.adopted.watch import Watch
from tests.adopt.programs import Ranks
with Ranks(count=4, delivered=(1,)) as ranks:
    begin = Watch.rehearse
    Watch.rehearse = lambda self: (begin(self), ranks.order(2, "hold", 256))
    try:
        rankguard.wait_ready(ranks.processes, ranks.readers)
    except rankguard.RankFailed as error:
        print(error.verdict.to_json())
"""


@pytest.fixture
def group():
    """A memory group with a limit (v1, or v2 where ours may have children with one)."""
    own = own_groups()
    key, file = ("memory", "memory.limit_in_bytes") if "memory" in own else ("v2", "memory.max")
    path = f"{own[key].path}/rankguard-test-adopt-{os.getpid()}"
    try:
        os.mkdir(path)
    except (KeyError, OSError) as error:
        pytest.skip(f"no memory group can be made: {error}")
    try:
        with open(f"{path}/{file}", "w") as limit:
            limit.write(str(LIMIT))
    except OSError as error:
        os.rmdir(path)
        pytest.skip(f"no memory group with a limit can be made: {error}")
    yield path
    os.rmdir(path)


@pytest.mark.cgroup
def test_an_oom_kill(group):
    path = os.pathsep.join([os.getcwd(), *sys.path])
    run = subprocess.run(
        [sys.executable, "-c", HOST, group],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert run.stdout, run.stderr
    verdict = json.loads(run.stdout)
    culprit = verdict["culprit"]
    assert (culprit["rank"], culprit["cause"]["kind"]) == (2, "oom-kill"), run.stderr
    assert "cgroup" in {each["source"] for each in culprit["cause"]["evidence"]}
    told_by_the_log = "kernel log" in {each["source"] for each in culprit["cause"]["evidence"]}
    assert culprit["cause"]["confidence"] == ("proven" if told_by_the_log else "likely")
    assert verdict["memory"]["limit_bytes"] == LIMIT
    assert verdict["exit_code"] == 137
