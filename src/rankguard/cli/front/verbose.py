"""`-v`: what was decided and why, line by line as it happens. The same story as `rankguard explain`, told from the same
journal while it is written; nothing is decided or collected here.
"""

import os
from collections.abc import Callable, Iterator

from rankguard.jobspec import JobSpec
from rankguard.report.tale import follow
from rankguard.report.wording import from_home, plural, printable


def story(spec: JobSpec) -> Callable[[str], Iterator[str]]:
    """A function that takes lines of the journal and gives lines for people, without a newline."""
    appended = follow()
    begun = _beginning(spec)

    def told(text: str) -> Iterator[str]:
        while begun:
            yield begun.pop(0)
        for moment in appended(text):
            at = "" if moment.at_s is None else f"{moment.at_s:.3f} s: "
            yield f"{at}{moment.what}"
            for order in moment.then:
                yield f"  → {order}"

    return told


def _beginning(spec: JobSpec) -> list[str]:
    command = printable(" ".join(spec.command), 300)
    kind = "of Python, each a new interpreter" if spec.python else "executed as it is"
    folder = from_home(spec.run_dir, os.environ.get("HOME")) if spec.run_dir is not None else None
    where = f"files in `{folder}`" if folder is not None else "no files are kept"
    return [f"run {spec.run_id}: {plural(spec.nprocs, 'rank')} {kind}: `{command}`", where]
