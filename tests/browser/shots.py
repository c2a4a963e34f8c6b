"""The pictures in docs/page/: real runs, made here and now, in a real browser. `.venv-page/bin/python -m tests.browser.shots`

Not a test. Needs root and Chromium; names on the command line narrow it. So that a picture shows a tidy machine and not
the one it was made on, all of it happens in namespaces of its own (host name, mounts) and in a memory group of its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright
from tests.browser.runs import Runs
from tests.page.served import Served

PICTURES = Path(__file__).parents[2] / "docs" / "page"
ZONE = "Europe/Berlin"
GROUP = Path("/sys/fs/cgroup/memory/batch")
TIDY = """
echo $$ > "$0/cgroup.procs"
hostname gpu-node-0
mount -t tmpfs none /srv
mount -t tmpfs none /opt
mkdir /opt/rankguard
mount --bind "$1" /opt/rankguard
shift
cd /opt/rankguard
.venv-page/bin/python -m tests.browser.shots "$@" && status=0 || status=$?
echo $$ > "$(dirname "$0")/cgroup.procs"
exit $status
"""
SCREEN, NARROW = (1280, 800), (360, 740)
# picture: report, scheme, size, whole page
REPORTS = {
    "oom": ("oom", "light", SCREEN, False),
    "oom-dark": ("oom", "dark", SCREEN, False),
    "oom-whole": ("oom", "light", SCREEN, True),
    "hang": ("hang", "light", SCREEN, False),
    "hang-whole-dark": ("hang", "dark", SCREEN, True),
    "restart-storm": ("storm", "light", SCREEN, False),
    "1-rank-light": ("one", "light", SCREEN, True),
    "1-rank-dark": ("one", "dark", SCREEN, True),
    "8-ranks-light": ("storm", "light", SCREEN, True),
    "8-ranks-dark": ("storm", "dark", SCREEN, True),
    "64-ranks-light": ("many64", "light", SCREEN, True),
    "64-ranks-dark": ("many64", "dark", SCREEN, True),
    "256-ranks-light": ("nodes256", "light", SCREEN, True),
    "256-ranks-dark": ("nodes256", "dark", SCREEN, True),
    "narrow": ("oom", "light", NARROW, False),
}


def reports(browser: Any, runs: Runs, wanted: list[str]) -> None:
    for name, (report, scheme, (width, height), whole) in REPORTS.items():
        if wanted and name not in wanted:
            continue
        context = browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, timezone_id=ZONE
        )
        page = context.new_page()
        page.goto(runs.report(report).as_uri())
        page.wait_for_selector("html[data-drawn]")
        save(page, name, whole=whole)
        context.close()


def live(browser: Any, folder: Path) -> None:
    """Eight ranks on their way: six ready, one that loads, one that captures."""
    with Served(folder, 8, "--ready-timeout", "600") as run:
        page = browser.new_page(
            viewport={"width": 1280, "height": 800}, color_scheme="light", timezone_id=ZONE, reduced_motion="reduce"
        )
        page.goto(f"http://127.0.0.1:{run.port}/")
        for rank in range(8):
            run.tell(rank, "status loading weights")
        for rank in range(8):
            page.wait_for_selector(f'.tile[data-rank="{rank}"] >> text=loading weights')
            if rank != 5:
                run.tell(rank, "status capturing graphs")
        for rank in (0, 1, 2, 4, 6, 7):
            run.tell(rank, "ready")
            page.wait_for_selector(f'.tile[data-rank="{rank}"][data-sign="ready"]')
        page.wait_for_selector("text=6 of 8")
        save(page, "live", whole=False)
        page.close()


def save(page: Any, name: str, *, whole: bool) -> None:
    file = PICTURES / f"{name}.png"
    page.screenshot(path=file, full_page=whole)
    if shutil.which("pngquant"):  # a third of the size, and nothing that an eye would see
        subprocess.run(["pngquant", "--force", "--skip-if-larger", "--output", file, "--", file], check=False)
    print(f"{file.stat().st_size / 1000:6.0f} kB  {file.name}", flush=True)


def tidy() -> None:
    """This program once more, at home in /opt/rankguard on `gpu-node-0`; runs lie in /srv."""
    GROUP.mkdir(exist_ok=True)
    try:
        command = [
            "unshare",
            "--mount",
            "--uts",
            "sh",
            "-euc",
            TIDY,
            str(GROUP),
            str(PICTURES.parents[1]),
            *sys.argv[1:],
        ]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": "/opt/rankguard/src", "TIDY": "1"})
    finally:
        GROUP.rmdir()
    sys.exit(done.returncode)


def main() -> None:
    """Make them."""
    if "TIDY" not in os.environ:
        tidy()
    PICTURES.mkdir(exist_ok=True)
    wanted, program, folder = sys.argv[1:], shutil.which("chromium"), Path("/srv")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        reports(browser, Runs(folder), wanted)
        if not wanted or "live" in wanted:
            (folder / "live").mkdir()
            live(browser, folder / "live")
        browser.close()


if __name__ == "__main__":
    main()
