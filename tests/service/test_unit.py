"""The unit file, as systemd's own tool reads it."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "deploy" / "rankguard@.service"


def test_systemd_finds_nothing_wrong_with_it(tmp_path: Path) -> None:
    tool = shutil.which("systemd-analyze")
    if tool is None:
        pytest.skip("systemd-analyze is not installed")
    installed = tmp_path / "rankguard@.service"
    installed.write_text(UNIT.read_text().replace("/usr/local/bin/rankguard", "/bin/true"))  # which has to be there
    instance = tmp_path / "rankguard@llama.service"
    instance.symlink_to(installed)

    ended = subprocess.run(
        [tool, "verify", "--man=no", "--recursive-errors=no", str(instance)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout + ended.stderr) == (0, "")


def test_each_of_its_choices_has_its_reason() -> None:
    page = (UNIT.parents[1] / "docs" / "systemd.md").read_text()
    chosen = ("KillMode=mixed", "SuccessExitStatus=143", "Delegate=yes", "OOMPolicy=continue", "WatchdogSec=1min")

    assert [line for line in chosen if line not in UNIT.read_text() or f"`{line}`" not in page] == []
