"""What notebooks show: valid, short, without anything that acts; and the one-line `repr`s."""

import os
import re
import subprocess
from html.parser import HTMLParser

import pytest
from tests.report import samples

import rankguard
from rankguard.model import Verdict
from rankguard.report.wording import word

ALLOWED = {"div", "strong", "span", "table", "tr", "th", "td", "pre", "code"}
EVIL = '</pre><script>alert(1)</script><img src=x onerror="a"> &amp; \x1b]0;owned\x07\u202e\'"'


class Page(HTMLParser):
    """Its tags, and that each is closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)
        self.attributes |= {name for name, _value in attrs}

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


@pytest.mark.parametrize("name", sorted(samples.ALL))
def test_every_verdict_is_a_small_piece_of_a_page(name):
    verdict = samples.ALL[name]()

    page = Page(html := verdict._repr_html_())

    assert page.tags <= ALLOWED
    assert page.attributes <= {"style", "class", "scope"}
    assert "background:#" not in html  # it stands on the notebook's own, light or dark
    assert len(html) < 16_000
    assert word(verdict.run_id) in page.text
    if verdict.culprit is not None:
        assert verdict.culprit.cause.kind in page.text
        assert all(hint[:60] in page.text for hint in verdict.hints[:3])


def poisoned(value):
    """Every text of a verdict is somebody else's."""
    if isinstance(value, str):
        return EVIL
    if isinstance(value, dict):
        return {key: poisoned(item) for key, item in value.items()}
    return [poisoned(item) for item in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", sorted(samples.ALL))
def test_no_text_becomes_markup(name):
    data = samples.ALL[name]().to_dict()
    keep = ("schema", "outcome", "phase", "family", "confidence", "kind", "relation", "started_at", "nodes")

    def walk(value):
        if isinstance(value, dict):
            return {k: v if k in keep and not isinstance(v, dict | list) else walk(v) for k, v in value.items()}
        return [walk(item) for item in value] if isinstance(value, list) else poisoned(value)

    page = Page(html := Verdict.from_dict(walk(data))._repr_html_())

    assert page.tags <= ALLOWED
    assert page.attributes <= {"style", "class", "scope"}
    assert not {"\x1b", "\x07", "\u202e"} & set(html)


def test_of_many_ranks_those_that_matter_are_shown():
    rows = [samples.outcome(n, "culprit" if n == 200 else "stopped") for n in range(256)]
    page = Page(samples.oom().replace(ranks=tuple(rows), world_size=256)._repr_html_())

    assert page.text.count("host-a") < 20
    assert "200host-a" in page.text
    assert "and 240 more" in page.text


def test_what_cannot_be_shown_is_none_and_no_error():
    assert samples.oom().replace(statement=5, hints=7)._repr_html_() is None


def test_reprs_are_one_line():
    verdict = samples.oom()

    assert repr(verdict) == f"<rankguard.Verdict {verdict.run_id} failed, oom-kill proven: {verdict.statement}>"
    for sample in samples.ALL.values():
        assert repr(sample()).isprintable()


def test_a_job_and_a_guard_tell_how_they_stand(tmp_path):
    os.mkfifo(
        tmp_path / "gate"
    )  # it fails once it was looked at: the news of a failure may come with that of the start
    with rankguard.launch(["sh", "-c", f"read gone < {tmp_path}/gate; exit 3"], console="none") as job:
        before = repr(job)
        Page(job._repr_html_())
        (tmp_path / "gate").write_text("\n")
        with pytest.raises(rankguard.RankFailed):
            job.wait()
        told = repr(job), Page(job._repr_html_()).text
    child = subprocess.Popen(["sleep", "1000"])
    guard = rankguard.guard([child], on_failure=lambda _verdict: None)
    ready = repr(guard)
    with guard:
        watching, shown = repr(guard), Page(guard._repr_html_()).text
        child.kill()
        guard.future.result()
        failed, page = repr(guard), guard._repr_html_()
        Page(page)
    child.wait()

    named = r"(>|pid ){}\b"  # its digits may also be those of a date, or of another pid
    assert before == f"<rankguard.Job {job.run_id}: 1 rank>"
    assert told[0] == f"<rankguard.Job {job.run_id}: {job.verdict.statement}>"
    assert "exit-code" in told[1]
    assert (ready, watching) == (
        "<rankguard.Guard of 1 process, not armed yet>",
        "<rankguard.Guard of 1 process, watching>",
    )
    assert shown == "guard of 1 process, watching"
    assert failed.startswith("<rankguard.Guard of 1 process: ")
    assert not re.search(named.format(os.getpid()), page)
    assert re.search(named.format(child.pid), page)
