"""Lines between machines that are slow, lossy or full, and machines with more ranks than cores."""

import os
import signal

import pytest
from tests.nodes.jobs import WAIT, Job, same

MIB = 1 << 20


@pytest.mark.slow
def test_a_slow_and_lossy_line_is_no_loss(hosts, tmp_path):
    """400 ms there and back, one frame of 20 lost; twice the default of `--node-timeout` goes by."""
    hosts[2].shape(delay_ms=200, loss=5)
    with Job(hosts, tmp_path, "tell()\ntime.sleep(10)\n") as job:
        job.start().tellings(8)
        verdict = same(job.ended())
    assert (verdict["outcome"], verdict["warnings"]) == ("succeeded", [])


@pytest.mark.slow
def test_a_rank_is_killed_behind_a_slow_line(hosts, tmp_path):
    hosts[2].shape(delay_ms=200, loss=5)
    with Job(hosts, tmp_path, WAIT) as job:
        job.start().up()
        job.kill_rank(5)
        job.gone(range(8))
        verdict = same(job.ended())
        stop = job.orders(2, "SignalAll")[0]
    assert (verdict["culprit"]["rank"], verdict["exit_code"], verdict["either"]) == (5, 137, [])
    assert stop["because"].startswith("rank 1 was ended by SIGKILL"), stop  # its own node needs no line to act


@pytest.mark.slow
def test_who_reads_slowly_blocks_no_rank_of_another_machine(hosts, tmp_path):
    """Nobody reads what node 0's command prints. Rank 4 writes 32 MiB, more than anything between could hold."""
    text = f"""
if RANK == 4:
    for _ in range({32 * MIB} // 1024):
        sys.stdout.write("x" * 1023 + "\\n")
    sys.stdout.flush()
tell()
"""
    with Job(hosts, tmp_path, text) as job:
        job.start("--log-max", "64M").tellings(8)  # also rank 4's, which wrote before it told
        nodes = job.ended()
    warnings = nodes[0].verdict["warnings"]
    shown = [each for each in warnings if "were not shown on stdout: the reader was too slow" in each]
    reached = [each for each in warnings if "of what its ranks printed did not reach node 0" in each]
    assert shown or reached  # how far it came depends on how quick each of them is
    assert len(shown) + len(reached) == len(warnings), warnings
    nodes[0].verdict["warnings"] = reached  # the others are its own screen's, and known only now
    assert same(nodes)["outcome"] == "succeeded"
    logs = list(job.run_dir(2).rglob("stdout.log"))
    assert sum(log.stat().st_size for log in logs) >= 32 * MIB, logs


@pytest.mark.slow
def test_what_a_narrow_line_does_not_take_is_counted(hosts, tmp_path):
    hosts[2].shape(rate=200_000)
    text = f"""
if RANK == 4:
    for _ in range({16 * MIB} // 1024):
        sys.stdout.write("x" * 1023 + "\\n")
    sys.stdout.flush()
tell()
signal.pause()
"""
    with Job(hosts, tmp_path, text) as job:
        job.start("--log-max", "64M").up()
        job.kill_rank(5)
        job.gone(range(8))
        nodes = job.ended()
    verdict = same(nodes)
    assert (verdict["culprit"]["rank"], verdict["exit_code"]) == (5, 137)
    assert len(nodes[0].stdout) < 16 * MIB


@pytest.mark.slow
def test_sixteen_ranks(hosts, tmp_path):
    with Job(hosts, tmp_path, WAIT, nproc=4) as job:
        job.start().up()
        job.kill_rank(9)
        job.gone(range(16))
        verdict = same(job.ended())
    assert (verdict["culprit"]["rank"], verdict["culprit"]["node"], verdict["exit_code"]) == (9, "host-c", 137)
    assert [row["relation"] for row in verdict["ranks"]].count("stopped") == 15


@pytest.mark.slow
def test_a_job_of_many_starts_and_ends(hosts, tmp_path):
    """Ten jobs of 8 ranks that end at once: nobody is taken for lost at start or end."""
    for turn in range(10):
        folder = tmp_path / str(turn)
        folder.mkdir()
        with Job(hosts, folder, "sys.exit(0)\n") as job:
            verdict = same(job.start().ended())
        assert (verdict["outcome"], os.listdir(hosts[2].folder / "tmp")) == ("succeeded", [])


@pytest.mark.slow
def test_stacks_of_all_of_them(hosts, tmp_path):
    with Job(hosts, tmp_path, WAIT) as job:
        job.start().up()
        job.fronts[0].send_signal(signal.SIGQUIT)
        job.fronts[0].send_signal(signal.SIGTERM)
        verdict = same(job.ended())
    assert verdict["outcome"] == "interrupted"
