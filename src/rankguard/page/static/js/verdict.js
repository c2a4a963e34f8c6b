// The first screen: who, why, when, what to do; while the run lives, where it stands.
(function () {
  "use strict";
  const rg = window.rg, h = rg.h;
  const LABEL = /^ {2}(retry|when|where|proof|memory|likely|then|signs|chosen|why|either|order|before|again|left) +(.*)$/;
  const OTHERS = 3;
  const SURE = { proven: ["●", "proven: the kernel's own word, or the rank's own report"], likely: ["◐", "likely: inferred from what was seen"], unknown: ["○", "unknown"] };
  const ICON = { starting: "starting", ready: "ready", running: "running", suspended: "suspended", stopping: "stopping", restarting: "restarting", succeeded: "finished", failed: "culprit", interrupted: "stopped", "cut off": "lost" };

  // `commands` in backticks become code; the rest is text.
  rg.rich = (text) => String(text).split(/(`[^`]+`)/).map((part) => (/^`[^`]+`$/.test(part) ? h("code", null, part.slice(1, -1)) : part));

  // The terminal report's own sentences by their label; what goes on in the next line is put together again.
  function sentences(lines) {
    const found = {};
    let label = null;
    for (const line of lines || []) {
      const match = LABEL.exec(line);
      if (match) (label = match[1]), (found[label] = [match[2]]);
      else if (label && /^ {10}\S/.test(line)) found[label].push(line.slice(10));
      else label = null;
    }
    return found;
  }

  const chip = (kind, text, title) => h("span.chip." + kind, { title }, text);

  function heading(view) {
    const verdict = view.verdict || {}, culprit = verdict.culprit;
    const over = !view.live;
    const chips = [];
    if (culprit) {
      const cause = culprit.cause, sure = SURE[cause.confidence] || SURE.unknown;
      chips.push(chip("kind", cause.kind, "the kind of cause; its family: " + cause.family), chip("sure", sure[0] + " " + cause.confidence, sure[1]));
    }
    if (over && verdict.exit_code !== null && verdict.exit_code !== undefined && view.state !== "cut off") chips.push(chip("bare", "exit " + verdict.exit_code, "the exit status of rankguard"));
    if (view.run.attempt) chips.push(chip("bare", "attempt " + (view.run.attempt + 1), "what was before: Attempts, below"));
    const before = view.attempts || [];
    const said = culprit || over ? verdict.statement || view.state_line || view.state : view.state_line || view.state;
    if (!over && !said.startsWith(view.state)) chips.unshift(chip("bare", view.state));
    if (!over && before.length) chips.push(chip("kind", before[before.length - 1].cause + " before"));
    return h("div.head", null,
      rg.icon(culprit ? "culprit" : ICON[view.state] || "lost"),
      h("div", null, h("h1", null, rg.rich(said)), h("p.chips", null, chips)));
  }

  // Where nothing better is known: the line of the program that raised it.
  function place(culprit) {
    const frames = (culprit.cause.exception || {}).frames || [];
    return frames.length ? "look at `" + frames[frames.length - 1] + "`, where it was raised" : null;
  }

  function todo(view, said) {
    const verdict = view.verdict || {}, retry = verdict.retry;
    const knows = retry && retry.advice && (retry.advice !== "unknown" || retry.because);
    if (!verdict.culprit) return null;
    const hints = (verdict.hints || []).length ? verdict.hints : [place(verdict.culprit)].filter(Boolean);
    if (!(hints.length || knows)) return null;
    return h("div.todo", null,
      h("h2", null, "What to do"),
      hints.length ? h("ol", null, hints.map((hint) => h("li", null, rg.rich(hint)))) : null,
      knows ? h("p", null, h("b", null, "Retry: "), said.retry ? said.retry.join(" ") : retry.advice + (retry.because ? ", " + retry.because : "")) : null);
  }

  const row = (name, ...value) => (value.flat().some((part) => part !== null && part !== "" && part !== undefined) ? [h("dt", null, name), h("dd", null, ...value)] : null);

  // `lasted_s` holds the stopping of the others, too.
  const failed_after = (one) => (one.started_at && one.failed_at ? (Date.parse(one.failed_at) - Date.parse(one.started_at)) / 1000 : one.lasted_s);

  function facts(view, said) {
    const verdict = view.verdict || {}, culprit = verdict.culprit, ranks = view.ranks || [];
    const ready = ranks.filter((rank) => rank.ready_s !== null && rank.ready_s !== undefined).length;
    if (!culprit)
      return h("dl.facts", null,
        row("Started", rg.time(verdict.started_at || view.run.started_at, 0)),
        row("All ready", verdict.ready_at ? [rg.time(verdict.ready_at), view.startup && view.startup.all_ready_s !== null ? ", " + rg.span(view.startup.all_ready_s) + " after launch" : ""] : null),
        row("Ended", verdict.ended_at && !view.live ? [rg.time(verdict.ended_at), " (it ran for " + rg.coarse(view.now_s) + ")"] : null),
        row("Stopped by", verdict.stopped_by ? [verdict.stopped_by.signal, verdict.stopped_by.comm ? " from " + verdict.stopped_by.comm : "", verdict.stopped_by.pid ? " (pid " + verdict.stopped_by.pid + ")" : ""] : null),
        row("Where", (verdict.nodes || []).join(", ")),
        row("Meanwhile", others(verdict)),
        row("Before", (view.attempts || []).slice(-3).map((one) => h("div", null, "attempt " + (one.attempt + 1) + " failed after " + rg.span(failed_after(one)) + ": " + one.statement))),
        row("Afterwards", said.then ? said.then.join(" ") : null));
    const rank = ranks.find((one) => one.relation === "culprit");
    const progress = culprit.progress ? ", " + rg.progress(culprit.progress) : "";
    return h("dl.facts", null,
      row("Who", h("button.link", { type: "button", "data-act": "rank", "data-rank": rank ? rg.id(rank) : culprit.rank }, culprit.rank !== null ? "rank " + culprit.rank : culprit.name || "pid " + culprit.pid), culprit.rank !== null && culprit.name ? " (" + culprit.name + ")" : "", (verdict.either || []).length ? "; " + rg.list(verdict.either) + " may as well have been first" : ""),
      row("When", rg.time(culprit.at), h("span.dim", null, " your time"), h("br"), rg.span(culprit.elapsed_s) + " after launch, while " + culprit.phase, view.run.expects_ready ? "; " + ready + " of " + ranks.length + " ready" : ""),
      row("Where", culprit.node + (culprit.pid ? ", pid " + culprit.pid : "")),
      row("Ended by", rg.ending(culprit.ending) + (culprit.ending && culprit.ending.core_dumped ? ", core dumped" : "") + (ours(rank) ? ", once rankguard had told it to end" : "")),
      row("Memory", culprit.cause.family === "memory" ? together(verdict.memory) : null),
      row("Last status", culprit.status ? "“" + culprit.status + "”" + progress : null),
      row("Meanwhile", others(verdict)),
      row("Afterwards", said.then ? said.then.join(" ") : followers(view)),
      row("Before", said.before ? said.before.join(" ") : null),
      row("Restart", said.again ? said.again.join(" ") : null));
  }

  // Processes of a watched engine that ended abnormally and were left to it, the last first.
  function others(verdict) {
    const reported = [...(verdict.reported || [])].reverse(), more = reported.length - OTHERS;
    const told = reported.slice(0, OTHERS).map((one) => h("div", null, one.name + " (pid " + one.pid + ", " + rg.ending(one.ending) + ", " + one.cause.kind + ", " + rg.span(one.at_s) + " after launch), left to the engine"));
    return more > 0 ? [...told, h("div", null, "and " + more + " more")] : told;
  }

  // It ended after a signal of ours, as a rank that hangs does: that was not the failure.
  const ours = (rank) => rank && rank.stopping_s !== null && rank.stopping_s !== undefined && rank.ended_s !== null && rank.stopping_s <= rank.ended_s;

  // Whose memory it was about: the limit is that of all.
  function together(memory) {
    if (!memory || memory.limit_bytes === null || memory.used_bytes === null) return null;
    const ranks = memory.ranks_bytes !== null && memory.ranks_bytes <= memory.used_bytes ? ", the ranks' " + rg.bytes(memory.ranks_bytes) + " among it" : "";
    const when = memory.age_s !== null ? rg.span(memory.age_s) + " before" : "just after";
    return "all together " + rg.bytes(memory.used_bytes) + " of " + rg.bytes(memory.limit_bytes) + " " + when + ranks;
  }

  function followers(view) {
    const by = {};
    for (const rank of view.ranks || []) if (rank.relation && rank.relation !== "culprit") (by[rank.relation] = by[rank.relation] || []).push(rg.id(rank));
    return Object.entries(by).map(([relation, ids]) => relation + ": " + rg.list(ids)).join("; ");
  }

  function proof(view, said) {
    const culprit = (view.verdict || {}).culprit;
    if (!culprit) return null;
    const cause = culprit.cause, rows = (cause.evidence || []).map((one) => [one.source, one.statement]);
    const who = (one) => (one.rank !== null && one.rank !== undefined ? "rank " + one.rank + " " : "") + one.because;
    for (const one of cause.responsible || []) rows.push([one.confidence + " reason", who(one)]);
    for (const label of ["chosen", "either"]) if (said[label]) rows.push([label, said[label].join(" ")]);
    const thrown = cause.exception;
    if (!rows.length && !thrown) return null;
    return h("div.proof", null,
      h("h2", null, "Proof"),
      rows.length ? h("table.plain", null, h("tbody", null, rows.map(([source, statement]) => h("tr", null, h("th", { scope: "row" }, source), h("td", null, rg.rich(statement)))))) : null,
      thrown ? h("div", null,
        (thrown.frames || []).length > 1 ? h("ol.frames", null, thrown.frames.slice(-4).reverse().map((frame) => h("li", null, frame))) : null,
        thrown.traceback ? h("details", null, h("summary", null, "The whole traceback"), h("pre", null, thrown.traceback)) : null) : null);
  }

  function last(view) {
    const culprit = (view.verdict || {}).culprit;
    if (!culprit || !(culprit.log_tail || []).length) return null;
    const who = culprit.rank !== null ? "Rank " + culprit.rank : culprit.name || "It";
    return h("div.last", null,
      h("h2", null, who + " said last"),
      h("pre", { tabindex: "0", "aria-label": "the last lines of output" }, culprit.log_tail.slice(-10).join("\n")));
  }

  function progress(view) {
    const ranks = view.ranks || [];
    if (!view.live || !view.run.expects_ready || !ranks.length || !["starting", "restarting"].includes(view.state)) return null;
    const ready = ranks.filter((rank) => rank.ready_s !== null && rank.ready_s !== undefined).length;
    return h("div.meter", { role: "progressbar", "aria-valuemin": "0", "aria-valuemax": ranks.length, "aria-valuenow": ready, "aria-label": "ranks that are ready" },
      h("i", { style: { width: (100 * ready) / ranks.length + "%" } }));
  }

  const warned = (texts) => (texts.length ? h("ul.warnings", { "aria-label": "warnings" }, texts.map((text) => h("li", null, rg.icon("warn"), h("span", null, rg.rich(text))))) : null);
  const column = (...parts) => (parts.some(Boolean) ? h("div.column", null, parts) : null);

  function draw(view) {
    const verdict = view.verdict || {}, said = sentences(view.report);
    const warnings = verdict.warnings || [];
    // What was said last stands where there is room for it.
    const culprit = verdict.culprit, left = culprit && (verdict.hints || []).length + (culprit.cause.evidence || []).length < 3;
    const shown = culprit ? 1 : 8; // what failed comes first
    return [
      heading(view),
      progress(view),
      h("div.cols", null, column(todo(view, said), proof(view, said), left ? last(view) : null), column(facts(view, said), left ? null : last(view))),
      culprit && warnings.length ? h("p.dim", null, "Before that, while it ran, rankguard warned:") : null,
      warned(warnings.slice(0, shown)),
      warnings.length > shown ? h("details.report", { "data-key": "warnings" }, h("summary", null, rg.count(warnings.length - shown, shown ? "more warning" : "warning")), warned(warnings.slice(shown))) : null,
      view.report && view.report.length ? h("details.report", { "data-key": "report" }, h("summary", null, "The report as the terminal shows it"), h("pre", { tabindex: "0" }, view.report.join("\n"))) : null,
    ];
  }

  rg.drawVerdict = function (view) {
    const section = document.getElementById("verdict");
    section.setAttribute("data-state", view.verdict && view.verdict.culprit ? "failed" : view.state);
    const had = section.querySelector(".last pre");
    rg.patch(section, draw(view));
    const has = section.querySelector(".last pre");
    if (has && has !== had) has.scrollTop = has.scrollHeight; // the last line is the one to read
  };
})();
