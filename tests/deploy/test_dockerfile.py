"""The Dockerfile's instructions, carried out in a mount namespace of this machine: no image is made, but what is copied,
built and installed is, and the entry point runs as the user that is named. Its syntax by hadolint, where that is there.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.containers.box import needs_container
from tests.deploy.manifests import DEPLOY, ROOT

DOCKERFILE = DEPLOY / "Dockerfile"
WRITTEN = ("/opt", "/src", "/workspace", "/var/lib", "/root")
"""What the instructions write to: empty file systems of memory there."""


def instructions() -> list[tuple[str, str]]:
    """(instruction, its text) of each, comments and continued lines taken together."""
    text = re.sub(r"^#.*\n", "", DOCKERFILE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    return [(line.split(None, 1)[0], line.split(None, 1)[1].strip()) for line in text.splitlines() if line.strip()]


def test_what_is_copied_is_there_and_no_more_is_needed() -> None:
    sources = [
        words.split()[:-1] for what, words in instructions() if what == "COPY" and not words.startswith("--from")
    ]
    copied = {source for each in sources for source in each}
    assert [source for source in copied if not (ROOT / source).exists()] == []
    project = (ROOT / "pyproject.toml").read_text()
    needed = set(re.findall(r'^(?:readme|license-files) = \[?"([^"]+)"', project, re.MULTILINE)) | {
        "src",
        "man",
        "pyproject.toml",
    }
    assert needed <= copied


def test_it_ends_as_no_root_and_as_rankguard() -> None:
    told = dict(instructions())
    user = told["USER"].partition(":")[0]
    assert user.isdecimal()  # `runAsNonRoot` cannot tell of a name
    assert int(user) > 0
    assert json.loads(told["ENTRYPOINT"]) == ["rankguard"]
    assert [what for what, _text in instructions()].count("FROM") == 2


def test_hadolint_has_nothing_to_say() -> None:
    beside = os.pathsep.join((os.path.dirname(sys.executable), os.environ["PATH"]))
    hadolint = shutil.which("hadolint", path=beside)
    if hadolint is None:
        pytest.skip("hadolint is not installed (make test-packaging)")
    told = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (told.returncode, told.stdout) == (0, "")


def as_script() -> str:
    """The two stages are one machine here: `COPY --from=build` finds what it would copy where it is to be."""
    lines = ["set -e", *(f"mkdir -p {path}; mount -t tmpfs -o mode=755 none {path}" for path in WRITTEN)]
    user = ""
    for what, text in instructions():
        words = text.split()
        if what == "WORKDIR":
            lines.append(f"mkdir -p {text}; cd {text}")
        elif what == "ENV":
            lines.append(f"export {text}")
        elif what == "RUN":
            lines.append(text)
        elif what == "USER":
            user = text
        elif what == "COPY" and words[0].startswith("--from="):
            lines.append(f"test -e {words[1]} && test {words[1]} = {words[2]}")
        elif what == "COPY":
            lines += [f"cp -r {ROOT}/{source} {words[-1]}" for source in words[:-1]]
    uid, _, gid = user.partition(":")
    lines.append(f'exec env HOME=/ setpriv --reuid {uid} --regid {gid} --clear-groups rankguard "$@"')
    return "\n".join(lines)


@pytest.mark.slow
@needs_container
def test_its_instructions_make_a_rankguard_that_works_as_pid_1() -> None:
    """As a user without a name or a home, with the image's own command, then with one that fails."""
    python = Path("/usr/bin/python3")
    if not python.exists() or subprocess.run([python, "-c", "import venv, ensurepip"], check=False).returncode:
        pytest.skip("no Python in /usr/bin that makes virtual environments, as the image's own")
    command = next(json.loads(text) for what, text in instructions() if what == "CMD")
    namespaces = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--mount"]
    env = {"PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": "/tmp"} | {
        name: value
        for name, value in os.environ.items()
        if name.upper().startswith(("PIP_", "HTTP", "SSL_", "NO_PROXY"))
    }
    for words, status in ((command, 0), (["run", "-n", "2", "--no-python", "sh", "-c", "exit 7"], 7)):
        told = subprocess.run(
            [*namespaces, "bash", "-c", as_script(), "build", *words],
            env=env, capture_output=True, text=True, timeout=300, check=False, cwd="/", stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if "No matching distribution" in told.stderr or "Could not find a version" in told.stderr:
            pytest.skip("no package index can be reached")
        assert told.returncode == status, told.stdout + told.stderr
        if status:
            assert "rankguard: exit 7 exit-code proven rank=" in told.stderr
    assert sys.executable  # the checkout's own Python was not needed
