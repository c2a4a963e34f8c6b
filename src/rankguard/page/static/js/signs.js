// Signs of life: a strip for each rank, the darker the more it said. A gap that goes on to the end is silence.
(function () {
  "use strict";
  const rg = window.rg, h = rg.h;
  const LEVELS = [1, 4, 16, 64]; // from so many signs a step on

  // What a rank could not have given, since it had not started or had ended, is null. Of output that only a look has noticed
  // the whole stretch since the look before is in the counts: it ends with the last sign that is known.
  function row(view, id) {
    const { step_s, from_s, ranks } = view.signs, rank = rg.find(id) || {};
    const step = (at, unknown) => (at === null || at === undefined ? unknown : Math.floor((at - from_s) / step_s));
    const first = step(rank.spawned_s, 0), heard = step(rank.last_sign_s, Infinity), last = step(rank.ended_s, Infinity);
    return ranks[id].map((count, i) => (i < first || (i > last && i > heard) ? null : i > heard ? 0 : count));
  }

  // null: it was not there (not started yet, or ended).
  const level = (count) => (count === null || count === undefined ? -1 : LEVELS.filter((least) => count >= least).length);

  // One path for each level, runs of equal steps put together: crisp at any width, and coloured by the style sheet.
  function paths(rows) {
    const drawn = ["", ...LEVELS.map(() => "")];
    rows.forEach((counts, y) => {
      for (let x = 0; x < counts.length; ) {
        const here = level(counts[x]);
        let to = x + 1;
        while (to < counts.length && level(counts[to]) === here) to++;
        if (here >= 0) drawn[here] += "M" + x + " " + (y + 0.12) + "h" + (to - x) + "v.76h-" + (to - x) + "z";
        x = to;
      }
    });
    return drawn.map((d, i) => (d ? rg.svg("path", { d, class: "level" + i }) : null));
  }

  function draw(view) {
    const signs = view.signs, ids = Object.keys(signs.ranks).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const steps = Math.max(1, ...ids.map((id) => signs.ranks[id].length)), to = signs.from_s + steps * signs.step_s;
    const culprit = rg.culprit(view), tall = ids.length <= 16 ? 18 : ids.length <= 64 ? 8 : 2.5;
    const every = Math.max(1, Math.ceil(14 / tall)), lead = quiet(view, ids);
    const labels = ids.map((id, i) => (id === culprit || (i % every === 0 && Math.abs(i - ids.indexOf(culprit)) >= every) ? h("span", { "data-sign": id === culprit ? "culprit" : null, style: { top: i * tall + tall / 2 + "px" } }, rg.short(rg.find(id) || { rank: id })) : null));
    return [
      lead ? h("p.lead", { "data-key": "lead" }, lead) : null,
      h("div.signs", { "data-key": "strip", style: { height: ids.length * tall + "px" } },
        h("div.labels", { "aria-hidden": "true" }, labels),
        rg.svg("svg", { viewBox: "0 0 " + steps + " " + ids.length, preserveAspectRatio: "none", role: "img", "aria-label": "signs of life of each rank over time; the table below says the last of each", "data-signs": "" },
          culprit !== null && ids.includes(culprit) ? rg.svg("rect", { class: "culprit", x: 0, y: ids.indexOf(culprit), width: steps, height: 1 }) : null,
          paths(ids.map((id) => row(view, id))))),
      h("div.signs.scale", { "data-key": "axis", "aria-hidden": "true" }, h("div.lane", null, rg.ticks(signs.from_s, to, 8).map((tick) => h("i.grid", { style: { left: (100 * (tick - signs.from_s)) / (to - signs.from_s) + "%" } }, h("span", null, tick === 0 ? "launch" : rg.span(tick)))))),
      h("p.read.dim", { "data-key": "read" }, rg.state.signs || "Output, status, heartbeats and progress, " + rg.span(signs.step_s) + " a step; the darker the more"),
      h("details", { "data-key": "table" }, h("summary", null, "As a table"), h("table", null, h("thead", null, h("tr", null, ["rank", "last sign", "by"].map((name) => h("th", { scope: "col" }, name)))), h("tbody", null, ids.map((id) => {
        const rank = rg.find(id) || {};
        return h("tr", { "data-key": id }, h("th", { scope: "row" }, rg.call(id)), h("td", null, rank.last_sign_s === null || rank.last_sign_s === undefined ? "none known" : rg.span(rank.last_sign_s) + " after launch"), h("td", null, rank.last_sign_by || ""));
      })))),
    ];
  }

  // Whose silence is worth a sentence: the culprit's of a stall; while the run lives, that of whoever has been silent longest.
  function quiet(view, ids) {
    const culprit = view.verdict && view.verdict.culprit, stalled = culprit && culprit.cause.family === "time";
    if (culprit ? !stalled : !view.live) return null;
    const end = culprit ? culprit.elapsed_s : view.now_s;
    const known = ids.map((id) => rg.find(id)).filter((rank) => rank && rank.last_sign_s !== null && rank.last_sign_s !== undefined && (culprit ? rank.relation === "culprit" : !rank.ending));
    if (!known.length) return null;
    const first = known.reduce((a, b) => (b.last_sign_s < a.last_sign_s ? b : a)), silent = end - first.last_sign_s;
    if (silent < 2) return null;
    const who = rg.call(first).replace(/^r/, "R"), by = ", since its last " + (first.last_sign_by || "sign") + ".";
    return culprit ? who + " had been silent for " + rg.span(silent) + by : who + " has been silent the longest: " + rg.coarse(silent) + by;
  }

  document.addEventListener("pointermove", function (event) {
    const strip = event.target.closest && event.target.closest("svg[data-signs]"), view = rg.data.view;
    if (!strip || !view || !view.signs) return;
    const box = strip.getBoundingClientRect(), ids = Object.keys(view.signs.ranks).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const id = ids[Math.floor(((event.clientY - box.top) / box.height) * ids.length)], counts = id === undefined ? [] : row(view, id);
    const steps = Math.max(1, ...ids.map((one) => view.signs.ranks[one].length)), x = Math.floor(((event.clientX - box.left) / box.width) * steps);
    const read = document.querySelector("#signs .read");
    if (id !== undefined && read) read.textContent = rg.clean(rg.call(id) + ", " + rg.span(view.signs.from_s + x * view.signs.step_s) + " after launch: " + rg.count(counts[x] || 0, "sign"));
  });

  rg.parts.push({ id: "signs", has: (view) => view.signs && Object.keys(view.signs.ranks || {}).length > 0, draw });
})();
