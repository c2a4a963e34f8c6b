"""docs/dependencies.md tells of every package that a user may get: its reason, its licence, its last release."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dependencies.md").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ROW = re.compile(r"^\| `\w+` \| ([\w-]+)[^|]*\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
RELEASE = re.compile(r"(?:([\w.-]+) )?(\d+(?:\.\d+)+), (\d{4}-\d\d)")


def rows() -> dict[str, tuple[str, str, str]]:
    """Package → why, releases, licence: of those that run."""
    return {name: (why, told, licence) for name, why, told, licence in ROW.findall(PAGE)}


def releases() -> dict[str, Version]:
    """Package → its last release, as the page has it; with those that others bring."""
    return {
        canonicalize_name(brought or name): Version(version)
        for name, (_why, told, _licence) in rows().items()
        for brought, version, _month in RELEASE.findall(told)
    }


def closure(requirements: list[str]) -> set[str]:
    """Everything that is installed with these, by the word of what is installed."""
    found: set[str] = set()
    waiting = [Requirement(each) for each in requirements]
    while waiting:
        asked = waiting.pop()
        name = canonicalize_name(asked.name)
        if name not in found and (asked.marker is None or asked.marker.evaluate({"extra": ""})):
            found.add(name)
            waiting += map(Requirement, metadata.requires(name) or ())
    return found


def test_what_comes_with_the_command_line_is_told_and_is_little() -> None:
    brought = closure(PROJECT["dependencies"])

    assert brought == {"rich", "markdown-it-py", "mdurl", "pygments", "py-spy"}
    assert brought <= set(releases())
    assert len(brought | {"rankguard"}) <= 8


def test_every_row_has_its_reason_and_its_release() -> None:
    optional = {Requirement(each).name for each in PROJECT["optional-dependencies"]["ray"]}

    assert {"rich", "py-spy", "cloudpickle", "nvidia-ml-py", "torch"} | optional == set(rows())
    for name, (why, told, licence) in rows().items():
        assert len(why) > 40, name
        assert RELEASE.match(told), name
        assert licence.strip(), name


def test_no_release_is_older_than_what_is_asked_for() -> None:
    asked = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["ray"]]

    for requirement in map(Requirement, asked):
        assert requirement.specifier.contains(releases()[canonicalize_name(requirement.name)]), requirement


@pytest.mark.slow  # not of time: it fails by itself once somebody publishes something, and then the page is to be mended
@pytest.mark.parametrize("name", sorted(releases()))
def test_no_release_is_told_that_is_older_than_the_one_here(name: str) -> None:
    """Offline all that is known: whoever has a newer one installed has a page to mend."""
    try:
        here = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{name} is not installed here")

    assert Version(here.version) <= releases()[name]
