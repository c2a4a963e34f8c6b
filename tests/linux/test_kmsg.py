"""The kernel log: texts as kernels really wrote them, and a kill that is awaited in the real log."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.linux._evidence_helpers import inside, inside_limit, job, obey, wait_readable

from rankguard.linux.kmsg import KernelLog, OomLines, in_init_pid_namespace, note_of, of_kernel
from rankguard.model import OomRecord

# Linux 6.18.44, a rank in a group of its own below one with 48 MiB (cgroup v1), recorded with this project's helpers.
CHOSEN = (
    "6,421,1607943560,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg=/process_api/2fac132680d2555446e9a368c1e4a052/rgspike,"
    "task_memcg=/process_api/2fac132680d2555446e9a368c1e4a052/rgspike/r0,task=python3,pid=7195,uid=0\n"
)
KILLED = (
    "3,422,1607943591,-;Memory cgroup out of memory: Killed process 7195 (python3) total-vm:65816kB, anon-rss:55840kB, "
    "file-rss:3628kB, shmem-rss:0kB, UID:0 pgtables:164kB oom_score_adj:0\n"
)
# Linux 6.1.176 (user-mode, cgroup2): the whole machine out of memory; a group with memory.oom.group = 1.
GLOBAL = [
    (
        "6,169,17920000,-;oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),global_oom,"
        "task_memcg=/rankguard-t686/rank-0,task=python,pid=687,uid=0\n"
    ),
    (
        "3,170,17920000,-;Out of memory: Killed process 687 (python) total-vm:649464kB, anon-rss:454984kB, file-rss:8kB, "
        "shmem-rss:0kB, UID:0 pgtables:940kB oom_score_adj:500\n"
    ),
]
WHOLE_GROUP = [
    (
        "6,227,21340000,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),oom_memcg=/rgtest-686,"
        "task_memcg=/rgtest-686/rankguard-t689/rank-0,task=python,pid=692,uid=0\n"
    ),
    (
        "3,228,21340000,-;Memory cgroup out of memory: Killed process 692 (python) total-vm:352504kB, anon-rss:117204kB, "
        "file-rss:2408kB, shmem-rss:0kB, UID:0 pgtables:280kB oom_score_adj:500\n"
    ),
    "6,229,21340000,-;Tasks in /rgtest-686/rankguard-t689/rank-0 are going to be killed due to memory.oom.group set\n",
    (
        "3,230,21340000,-;Memory cgroup out of memory: Killed process 690 (python) total-vm:45304kB, anon-rss:29236kB, "
        "file-rss:2956kB, shmem-rss:0kB, UID:0 pgtables:108kB oom_score_adj:500\n"
    ),
    (
        "3,231,21350000,-;Memory cgroup out of memory: Killed process 692 (python) total-vm:352504kB, anon-rss:117204kB, "
        "file-rss:2408kB, shmem-rss:0kB, UID:0 pgtables:280kB oom_score_adj:500\n"
    ),
]
NOISE = [
    "4,344,1607934919,-;python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=0\n",
    "4,361,1607941903,-; <TASK>\n",
    "6,375,1607943339,-;Memory cgroup stats for /process_api/2fac132680d2555446e9a368c1e4a052/rgspike:\n",
    "6,420,1607943555,-;[   7195]     0  7195    16454    14867    13960      907         0   167936        0 python3\n",
    "6,423,1607949999,-;oom_reaper: reaped process 7195 (python3), now anon-rss:0kB, file-rss:0kB, shmem-rss:0kB\n",
    "6,9,1,-;pci 0000:00:01.0: reg 0x10\n SUBSYSTEM=pci\n DEVICE=+pci:0000:00:01.0\n",
]


def test_the_lines_of_one_kill_become_one_record():
    expected = OomRecord(
        pid=7195,
        name="python3",
        text=KILLED.partition(";")[2].strip(),
        cgroup="/process_api/2fac132680d2555446e9a368c1e4a052/rgspike/r0",
        anon_rss_bytes=55840 * 1024,
        of_whole_machine=False,
        logged_us=1_607_943_591,
    )
    assert OomLines().take([NOISE[0], CHOSEN, *NOISE, KILLED, *NOISE]) == [expected]


def test_a_kill_may_be_spread_over_two_looks():
    lines = OomLines()
    assert lines.take([CHOSEN]) == []
    (record,) = lines.take([KILLED])
    assert record.cgroup == "/process_api/2fac132680d2555446e9a368c1e4a052/rgspike/r0"


def test_the_whole_machine_may_be_out_of_memory():
    (record,) = OomLines().take(GLOBAL)
    assert (record.pid, record.cgroup, record.of_whole_machine) == (687, "/rankguard-t686/rank-0", True)


def test_a_group_killed_as_a_whole_is_one_record_for_each_process():
    records = OomLines().take(WHOLE_GROUP)
    group = "/rgtest-686/rankguard-t689/rank-0"
    assert [(record.pid, record.cgroup) for record in records] == [(692, group), (690, group)]


def test_a_kill_after_that_of_a_whole_group_is_another_matter():
    lines = OomLines()
    lines.take(WHOLE_GROUP)
    assert [record.cgroup for record in lines.take([KILLED])] == [None]


def test_a_victim_whose_choice_was_not_seen_has_no_group():
    (record,) = OomLines().take([KILLED])
    assert (record.pid, record.cgroup) == (7195, None)


def test_what_a_process_wrote_to_the_log_is_no_word_of_the_kernel():
    assert OomLines().take([KILLED.replace("3,", "11,", 1), "12,1,1,-;" + KILLED.partition(";")[2]]) == []


def test_a_backslash_in_a_group_comes_back():
    escaped = CHOSEN.replace("/r0", "/app\\x5cx2dterminal.scope")
    (record,) = OomLines().take([escaped, KILLED])
    assert record.cgroup.endswith("/rgspike/app\\x2dterminal.scope")


@given(
    st.lists(st.text(max_size=80) | st.sampled_from([CHOSEN, KILLED, CHOSEN[:150], KILLED[:80], KILLED[:60], *NOISE]))
)
def test_no_text_is_too_strange(records):
    for record in OomLines().take(records):
        assert record.pid == 7195


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="\\"), min_size=1, max_size=15))
def test_any_name_is_read_back(name):
    lines = [CHOSEN.replace("task=python3", f"task={name}"), KILLED.replace("(python3)", f"({name})")]
    (record,) = OomLines().take(lines)
    assert (record.pid, record.name) == (7195, name)
    assert record.cgroup.endswith("/rgspike/r0")


def test_a_real_kill_is_told_with_the_rank_s_group():
    probe = KernelLog()
    if not probe.readable:
        pytest.skip(probe.why_not)
    probe.close()

    def odd_name(orders, answers):
        with open("/proc/self/comm", "w") as comm:
            comm.write("a) b,pid=1,x=\\")
        obey(orders, answers)

    def work():
        log = KernelLog()
        with job(body=odd_name) as (groups, ranks):
            ranks[1].tell("hold 200")
            records = []
            # Ten kills within five seconds, as other tests make them, and the kernel leaves out the line with the group.
            while not any(groups.rank_of(r.cgroup or "") == 1 or r.pid == ranks[1].pid for r in records):
                assert wait_readable(log.fileno()), "the kernel log is silent"
                records += log.drain()
            ranks[1].ended()
            (record,) = [r for r in records if groups.rank_of(r.cgroup or "") == 1 or r.pid == ranks[1].pid]
            log.close()
            rank = groups.rank_of(record.cgroup) if record.cgroup else 1
            return [rank, record.pid, ranks[1].pid, record.name, record.anon_rss_bytes, record.of_whole_machine]

    rank, pid, real, name, anon, whole = inside_limit(100, work)

    assert name == "a) b,pid=1,x=\\"
    assert 50 << 20 < anon < 1 << 30  # pages that a fork inherited are among them
    assert whole is False
    assert rank == 1
    if in_init_pid_namespace():
        assert pid == real


def test_a_log_that_cannot_be_opened_is_said():
    log = KernelLog("/dev/no-such-log")
    assert not log.readable
    assert log.why_not == "unable to read the kernel log /dev/no-such-log: No such file or directory"
    assert log.drain() == []
    assert log.fileno() == -1
    log.close()


def test_another_user_may_be_refused():
    try:
        with open("/proc/sys/kernel/dmesg_restrict") as file:
            restricted = file.read().strip() == "1"
    except OSError:
        restricted = False
    if not restricted or os.geteuid() != 0:
        pytest.skip("needs root, and dmesg_restrict = 1")

    def work():
        os.setuid(65534)
        log = KernelLog()
        return [log.readable, log.why_not]

    assert inside(None, work) == [False, "unable to read the kernel log /dev/kmsg: Operation not permitted"]


def test_only_news_are_told():
    log = KernelLog()
    if not log.readable:
        pytest.skip(log.why_not)
    assert not os.get_inheritable(log.fileno())
    log.close()


# ── Crashes and GPUs ─────────────────────────────────────────────────────────────────────────────────────────────────

# Linux 6.18.44 (recorded), 5.4 (no CPU at the end), general protection and invalid opcode of 6.x; NVIDIA 535 and 390.
NOTES = {
    "python3[11247]: segfault at 0 ip 00007f100d223102 sp 00007fff05d27c40 error 6 in libboom.so[1102,7f100d223000+1000]"
    " likely on CPU 0 (core 0, socket 0)": ("segfault", 11247, "python3", "libboom.so", None),
    "a b[1]c[77]: segfault at 7f00 ip 00007f10 sp 00007fff error 4 in lib c++.so.6[7f100d223000+1000]": (
        "segfault", 77, "a b[1]c", "lib c++.so.6", None,
    ),
    "python3[5]: segfault at 0 ip 0000000000000000 sp 00007fff05d27c40 error 14 likely on CPU 1 (core 1, socket 0)": (
        "segfault", 5, "python3", None, None,
    ),
    "traps: python3[9] trap invalid opcode ip:7f0a sp:7ffd error:0 in _C.so[7f0a+1000]": ("trap", 9, "python3", "_C.so", None),
    "traps: python3[9] general protection fault ip:7f0a sp:7ffd error:0 in _C.so[1,7f0a+1000]": (
        "trap", 9, "python3", "_C.so", None,
    ),
    "NVRM: Xid (PCI:0000:3B:00): 79, pid=1234, name=python, GPU has fallen off the bus.": (
        "xid", 1234, "python", "0000:3b:00", 79,
    ),
    "NVRM: Xid (PCI:0000:3b:00): 79, pid='<unknown>', name=<unknown>, GPU has fallen off the bus.": (
        "xid", None, None, "0000:3b:00", 79,
    ),
    "NVRM: Xid (0000:03:00): 43, Ch 00000010, engmask 00000101": ("xid", None, None, "0000:03:00", 43),
}  # fmt: skip


@pytest.mark.parametrize("line", NOTES)
def test_a_line_about_a_crash_or_a_gpu(line):
    note = note_of(line)

    assert (note.kind, note.pid, note.name, note.where, note.number) == NOTES[line]
    assert note.text == line


@pytest.mark.parametrize(
    "line",
    [
        "python3[1]: segfault of the third kind",
        "NVRM: GPU at PCI:0000:3b:00: GPU-b850f46d",
        "a process wrote: NVRM: Xid (PCI:0000:3b:00): 79, x",
        "traps: nothing",
    ],
)
def test_other_lines_are_no_notes(line):
    assert note_of(line) is None


def test_lines_of_another_facility_are_not_the_kernel_s():
    """14 is facility 1 (user), level 6: what `echo >/dev/kmsg` carries."""
    line = "NVRM: Xid (PCI:0000:3b:00): 79, pid=1, name=python, GPU has fallen off the bus.\n"

    assert [text for _when, text in of_kernel([f"3,1,5,-;{line}", f"11,2,6,-;{line}", f"14,3,7,-;{line}"])] == [
        line.strip()
    ]


@given(st.text())
def test_no_line_upsets_the_reader(text):
    note_of(text)
