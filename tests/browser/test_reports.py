"""Reports of real runs, opened from disk with the network off: who, why, when and what to do, without scrolling."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from tests.page.made import KILLED, data_in, run_of, spec_of, trained

import rankguard
from rankguard.model import Cause, Confidence, Family, Reported

SCREEN = 800


def seen_at_once(page: Any, selector: str) -> str:
    """The text of what stands whole on the first screen."""
    box = page.locator(selector).bounding_box()
    assert box is not None, selector
    assert box["y"] + box["height"] <= SCREEN, (selector, box)
    return str(page.locator(selector).inner_text())


def facts(page: Any) -> dict[str, str]:
    names, values = (page.locator(f"#verdict .facts > {tag}").all_inner_texts() for tag in ("dt", "dd"))
    return dict(zip(names, values, strict=True))


def parts(page: Any) -> list[str]:
    """Those that are shown."""
    shown = "all => all.filter(one => !one.hidden).map(one => one.id)"
    return list(page.locator("main > section").evaluate_all(shown))


@pytest.mark.cgroup
def test_out_of_memory(read: Any, runs: Any) -> None:
    page = read(runs.report("oom"))

    who = seen_at_once(page, "h1")
    culprit = re.fullmatch(r"rank (\d) of 8 was killed by the kernel's OOM killer while starting", who)
    assert culprit, who
    assert seen_at_once(page, ".chips").split() == ["oom-kill", "●", "proven", "exit", "137"]
    assert "raise the memory limit from 624 MiB" in seen_at_once(page, ".todo")
    assert "Retry: no, the same memory limit would be met again" in seen_at_once(page, ".todo")
    assert re.search(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \+0[12]:00", facts(page)["When"])  # winter, summer
    assert facts(page)["Ended by"] == "SIGKILL"
    assert re.fullmatch(
        r"all together [\d.]+ MiB of 624 MiB (just after|.* before)(, the ranks' .* among it)?", facts(page)["Memory"]
    )
    assert re.search("(kernel log|cgroup)", seen_at_once(page, ".proof"))
    # The kernel may have taken a second one before the rest was stopped.
    assert re.match(
        rf"(ranks? [^;]+; )?stopped ranks [^;]+ because rank {culprit[1]} failed", facts(page)["Afterwards"]
    )

    assert page.locator(".tile").count() == 8
    assert page.locator(".tile[data-sign=culprit]").get_attribute("data-rank") == culprit[1]
    assert page.locator("#memory .plot canvas").count() == 2
    assert page.locator("#memory .lead").inner_text().startswith(f"Rank {culprit[1]} was killed ")
    first = page.locator(".deaths > li").first
    assert first.get_attribute("data-sign") == "culprit"
    culprits = page.evaluate("rg.data.view.deaths.find((each) => each.relation === 'culprit')")
    began = culprits["began_s"]  # where the kernel tells
    gone = re.search(r"first.*gone \+[\d.]+ (ms|µs)", first.inner_text(), re.DOTALL)
    at_once = began is None or culprits["at_s"] - began <= 5e-6
    assert (gone is None) == at_once, (first.inner_text(), culprits)
    assert page.locator("#startup .waterfall > li").count() == 8


def drawn_until(page: Any) -> dict[int, int]:
    """The step at which each rank's last sign of life ends, as the strip shows it."""
    ends: dict[int, int] = {}
    for path in page.locator("#signs svg path:not(.level0)").all():
        for x, y, width in re.findall(r"M(\d+) (\d+)\.12h(\d+)", path.get_attribute("d")):
            ends[int(y)] = max(ends.get(int(y), 0), int(x) + int(width))
    return ends


def test_a_hang(read: Any, runs: Any) -> None:
    page = read(runs.report("hang"))

    assert seen_at_once(page, "h1").startswith(
        "rank 2 of 8 has shown no sign of progress for 2 s: it waits in fetch_next_shard"
    )
    assert seen_at_once(page, ".chips").split()[:3] == ["stall", "◐", "likely"]
    assert re.search(r"see why 127\.0\.0\.1:\d+ sends nothing", seen_at_once(page, ".todo"))
    assert "if it is only slow, let it say so" in seen_at_once(page, ".todo")
    assert "fetch_next_shard" in seen_at_once(page, ".proof")
    assert "step 11 loss 0.083" in seen_at_once(page, ".last")
    assert seen_at_once(page, "#ranks .legend").split("\n")[0] == "1 failed first"

    odd, rest = page.locator(".stack").all()
    assert odd.locator("h3").inner_text().split("\n")[0] == "rank 2"
    assert "the odd one out" in odd.inner_text()
    assert "fetch_next_shard" in odd.locator(".frames li").first.inner_text()
    assert rest.locator("h3").inner_text() == "ranks 0, 1, 3-7"
    lead = page.locator("#startup .lead").inner_text()
    told = re.search(r"Rank (\d) was last, ([\d.]+) (µs|ms|s) after the last but one", lead)
    view = data_in(runs.report("hang").read_text())["view"]
    *_, before, last = sorted(view["ranks"], key=lambda rank: float(rank["ready_s"]))
    if told is None:  # two were heard of at once
        assert ("was last" in lead, last["ready_s"]) == (False, before["ready_s"]), lead
    else:
        behind = float(told[2]) * {"µs": 1e-6, "ms": 1e-3, "s": 1}[told[3]]
        assert (int(told[1]), behind) == (last["rank"], pytest.approx(last["ready_s"] - before["ready_s"], 0.01))
    signs = view["signs"]
    steps = {each["rank"]: int((each["last_sign_s"] - signs["from_s"]) / signs["step_s"]) for each in view["ranks"]}
    assert drawn_until(page) == {rank: step + 1 for rank, step in steps.items()}  # no sign after the last one


def test_a_restart_storm(read: Any, runs: Any) -> None:
    page = read(runs.report("storm"))

    assert "rank 3 of 8 raised RuntimeError: checkpoint shard 3 of 8 is corrupt" in seen_at_once(page, "h1")
    assert "no, all 4 attempts failed alike" in seen_at_once(page, ".todo")
    assert facts(page)["Restart"] == "no: it was started again 3 times, as often as --max-restarts allows"
    assert "attempt 1 failed after" in facts(page)["Before"]
    rows = page.locator("#attempts tbody tr").all_inner_texts()
    assert [re.search(r"found (\d+)", row)[1] for row in rows] == ["4000", "4001", "4002", "4003"]  # type: ignore[index]
    assert "restart 3 of 3" in rows[2]


def test_success(read: Any, runs: Any) -> None:
    page = read(runs.report("success"))

    assert page.locator("#verdict").get_attribute("data-state") == "succeeded"
    assert page.locator(".tile[data-sign=finished]").count() == 4
    assert page.locator(".todo").count() == page.locator(".proof").count() == 0
    assert "All ready" in facts(page)
    assert "stacks" not in parts(page)
    assert "attempts" not in parts(page)


def test_what_was_left_to_a_watched_engine(read: Any, tmp_path: Path) -> None:
    """The engine ended well; that workers of it were killed stands on the first screen all the same."""
    folder = tmp_path / "run"
    run_of(folder, spec_of(2, folder), trained(2, 8))
    why = Cause("killed", Family.OPERATOR, Confidence.PROVEN, "a worker was killed")
    reported = tuple(Reported(f"worker {n}", "worker", n, 100 + n, 99, KILLED, why, n + 0.5) for n in range(5))
    failed = rankguard.read_run(folder).verdict.replace(reported=reported)
    for name, verdict in (("failed", failed), ("well", failed.replace(outcome="succeeded", exit_code=0, culprit=None))):
        (folder / "verdict.json").write_text(verdict.to_json())
        page = rankguard.read_run(folder).html(tmp_path / f"{name}.html")

        assert facts(read(page))["Meanwhile"].split("\n") == [
            "worker 4 (pid 104, SIGKILL, killed, 4.50 s after launch), left to the engine",
            "worker 3 (pid 103, SIGKILL, killed, 3.50 s after launch), left to the engine",
            "worker 2 (pid 102, SIGKILL, killed, 2.50 s after launch), left to the engine",
            "and 2 more",
        ]


def test_one_rank(read: Any, runs: Any) -> None:
    page = read(runs.report("one"))

    assert seen_at_once(page, "h1").startswith("rank 0 of 1 raised RuntimeError: loss is NaN at step 12")
    assert page.locator(".tile").count() == 1


@pytest.mark.parametrize(("name", "size", "culprit"), [("many64", 64, "37"), ("many256", 256, "141")])
def test_many_ranks(read: Any, runs: Any, name: str, size: int, culprit: str) -> None:
    report = runs.report(name)
    assert report.stat().st_size < 1_000_000
    page = read(report)

    assert page.locator(".tile").count() == size
    grid = page.locator("#ranks").bounding_box()
    assert grid["height"] < SCREEN - 100  # all of them at once
    cut = "all => all.filter(one => one.scrollWidth > one.clientWidth).length"
    assert page.locator(".tile .top b").evaluate_all(cut) == 0
    assert page.locator(".tile[data-sign=culprit] b").inner_text() == culprit
    assert page.locator(".deaths > li").count() < 15
    assert page.locator("#startup .waterfall > li").count() == 16
    page.click("#startup [data-act=all]")
    assert page.locator("#startup .waterfall > li").count() > 16
    assert page.locator("#output select option").first.inner_text() == f"rank {culprit}, failed first"
    assert "step 12 loss" in page.locator("#output .log").first.inner_text()


@pytest.mark.skipif(os.getuid() != 0, reason="a host name of one's own takes root")
def test_several_nodes(read: Any, runs: Any) -> None:
    page = read(runs.report("nodes"))

    assert page.locator("#ranks .group h3").all_inner_texts() == ["gpu-node-0 4 ranks", "gpu-node-1 4 ranks"]
    assert page.locator("#ranks .group").nth(1).locator(".tile b").all_inner_texts() == ["4", "5", "6", "7"]
    assert facts(page)["Where"].startswith("gpu-node-1, pid ")


def test_times_are_the_readers(read: Any, runs: Any) -> None:
    page = read(runs.report("success"), timezone_id="Asia/Kolkata")

    for time in page.locator("time").all():
        assert time.inner_text().endswith("+05:30")
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ UTC", page.locator("#verdict time").first.get_attribute("title")
    )


def test_what_the_policy_forbids_is_forbidden(read: Any, runs: Any) -> None:
    """That nothing was violated means little unless something would be."""
    page = read(runs.report("success"), violates=True)

    violated = page.evaluate("""() => new Promise((done) => {
        document.addEventListener("securitypolicyviolation", (event) => done(event.violatedDirective));
        const script = document.createElement("script");
        script.textContent = "window.harmed = 1";
        document.body.append(script);
    })""")
    assert violated.startswith("script-src")
    assert page.evaluate("window.harmed") is None
