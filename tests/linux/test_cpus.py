"""How much CPU time a cgroup pays for."""

import os

import pytest

from rankguard.linux.cpus import cpu_quota, usable_cpus
from rankguard.linux.hierarchies import Group


def groups(tmp_path, key, files):
    """A group `a/b` in one hierarchy with these files, by their paths."""
    (tmp_path / "a/b").mkdir(parents=True)
    for path, text in files.items():
        (tmp_path / path).write_text(text + "\n")
    return {key: Group(name="/a/b", path=str(tmp_path / "a/b"), top=str(tmp_path))}


@pytest.mark.parametrize(
    ("key", "files", "expected"),
    [
        ("v2", {"a/b/cpu.max": "max 100000"}, None),
        ("v2", {"a/b/cpu.max": "250000 100000"}, 2.5),
        ("v2", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5),
        ("cpu", {"a/b/cpu.cfs_quota_us": "-1", "a/b/cpu.cfs_period_us": "100000"}, None),
        ("cpu", {"a/b/cpu.cfs_quota_us": "800000", "a/b/cpu.cfs_period_us": "100000"}, 8.0),
        ("v2", {}, None),
    ],
)
def test_the_smallest_of_all_groups_above(tmp_path, key, files, expected):
    assert cpu_quota(groups(tmp_path, key, files)) == expected


def test_here():
    quota = cpu_quota()

    assert quota is None or quota > 0
    assert usable_cpus() == len(os.sched_getaffinity(0))
