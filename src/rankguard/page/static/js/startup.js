// The start-up as a waterfall: a row for each rank, a bar for each thing it said that it was doing.
(function () {
  "use strict";
  const rg = window.rg, h = rg.h;
  const FEW = 32, SHOWN = 16, COLOURS = 6;

  const plain = (what) => String(what).replace(/[\d.,/%]+/g, "").replace(/\s+/g, " ").trim() || "…";

  function end_of(view, rank) {
    return Math.max(...rank.spans.map((span) => (span.to_s === null ? view.now_s : span.to_s)));
  }

  function chosen(view, rows) {
    if (rows.length <= FEW || rg.state.all.startup) return rows;
    const culprit = rg.culprit(view), slowest = [...rows].sort((a, b) => end_of(view, b) - end_of(view, a)).slice(0, SHOWN - 2);
    const quickest = [...rows].sort((a, b) => end_of(view, a) - end_of(view, b))[0];
    const keep = new Set([...slowest, quickest, rows.find((row) => String(row.rank) === culprit)]);
    return rows.filter((row) => keep.has(row));
  }

  function bar(span, view, to, colours) {
    const end = span.to_s === null ? view.now_s : span.to_s;
    const says = span.what + ", " + rg.span(end - span.from_s) + (span.to_s === null ? " so far" : "");
    return h("i.bar", { title: says, "data-colour": colours.get(plain(span.what)), "data-open": span.to_s === null && view.live ? "" : null, style: { left: (100 * span.from_s) / to + "%", width: Math.max(0.15, (100 * (end - span.from_s)) / to) + "%" } });
  }

  function draw(view) {
    const startup = view.startup, all = startup.ranks.filter((rank) => rank.spans.length), rows = chosen(view, all);
    const to = Math.max(0.001, ...all.map((rank) => end_of(view, rank))) * 1.01;
    const colours = new Map();
    for (const rank of all) for (const span of rank.spans) if (!colours.has(plain(span.what))) colours.set(plain(span.what), colours.size % COLOURS);
    const slowest = startup.slowest !== null && startup.slowest !== undefined ? String(startup.slowest) : null;
    const told = startup.all_ready_s !== null && startup.all_ready_s !== undefined ? "All ranks were ready after " + rg.span(startup.all_ready_s) + "." : "";
    const behind = slowest !== null && (!told || startup.behind_s) ? rg.call(slowest) + (told ? " was last" : " is the slowest") + (startup.behind_s ? ", " + rg.span(startup.behind_s) + " after the last but one" : "") + "." : "";
    return [
      told || behind ? h("p.lead", { "data-key": "lead" }, told, told && behind ? " " : "", behind.charAt(0).toUpperCase() + behind.slice(1)) : null,
      h("ul.keys", { "data-key": "keys", "aria-label": "what the bars mean" }, [...colours].slice(0, 12).map(([what, colour]) => h("li", null, h("i.key", { "data-colour": colour }), what))),
      h("ol.waterfall", { "data-key": "rows" }, rows.map((row) => {
        const rank = rg.find(row.rank), id = String(row.rank), ready = rank && rank.ready_s !== null && rank.ready_s !== undefined;
        const spoken = row.spans.map((span) => span.what + " from " + rg.span(span.from_s) + (span.to_s === null ? "" : " to " + rg.span(span.to_s))).join(", ");
        const ended = rank && rank.ended_s !== null && rank.ended_s !== undefined && !ready;
        return h("li", { "data-key": id, "data-slowest": id === slowest ? "" : null },
          h("span.who", null, h("button.link", { type: "button", "data-act": "rank", "data-rank": id }, rank ? rg.call(rank) : "rank " + id)),
          h("span.lane", { role: "img", "aria-label": spoken },
            row.spans.map((span) => bar(span, view, to, colours)),
            ready ? h("i.flag", { "data-sign": "ready", style: { left: (100 * rank.ready_s) / to + "%" } }, rg.icon("ready")) : null,
            ended ? h("i.flag", { "data-sign": rg.sign(rank), style: { left: (100 * Math.min(rank.ended_s, to / 1.01)) / to + "%" } }, rg.icon(rg.sign(rank))) : null),
          h("span.when", null, ready ? rg.span(rank.ready_s) : ended ? "ended" : view.live ? "…" : ""));
      })),
      h("div.waterfall.scale", { "data-key": "axis", "aria-hidden": "true" }, h("span.who"), h("span.lane", null, rg.ticks(0, to / 1.01, 8).map((tick) => h("i.grid", { style: { left: (100 * tick) / to + "%" } }, h("span", null, tick === 0 ? "launch" : rg.span(tick))))), h("span.when")),
      all.length > rows.length || rg.state.all.startup ? h("button.quiet", { type: "button", "data-act": "all", "data-part": "startup", "data-key": "all" }, rg.state.all.startup ? "Show the slowest only" : "Show all " + all.length + " (these are the slowest, and the quickest)") : null,
    ];
  }

  rg.acts.all = function (element) {
    rg.state.all[element.dataset.part] = !rg.state.all[element.dataset.part];
    rg.redraw();
  };
  rg.parts.push({ id: "startup", has: (view) => view.startup && (view.startup.ranks || []).some((rank) => rank.spans.length), draw });
})();
