// Who ended when: the whole attempt on one line, and the moment of the first failure enlarged, where milliseconds matter.
(function () {
  "use strict";
  const rg = window.rg, h = rg.h;
  const MOST_ROWS = 14; // more ranks that we stopped share a row

  // When it began to end: the culprit when it failed (an exception, a stall: long before its end), others as the kernel tells.
  function start(death) {
    const culprit = death.relation === "culprit" && rg.data.view.verdict && rg.data.view.verdict.culprit;
    const known = [death.at_s, death.began_s, culprit ? culprit.elapsed_s : null].filter((at) => at !== null && at !== undefined);
    return Math.min(...known);
  }
  const own = (death) => death.relation !== "stopped" && death.relation !== "finished";

  // What is enlarged: from just before the first failure to at most a second after it.
  function window_of(deaths, stops) {
    const failed = deaths.filter(own), first = Math.min(...(failed.length ? failed : deaths).map(start));
    const later = [...deaths.map((death) => death.at_s), ...stops.map((stop) => stop.at_s)].filter((at) => at >= first && at <= first + 1);
    const last = Math.max(first + 0.001, ...later), pad = (last - first) * 0.06;
    return { first, from: first - pad, to: last + pad };
  }

  // [{ids, deaths, relation, what, from, to}], earliest first; of many that were stopped alike one row.
  function rows_of(deaths) {
    const sorted = [...deaths].sort((a, b) => start(a) - start(b) || a.at_s - b.at_s);
    const rows = [], shared = new Map();
    for (const death of sorted) {
      const name = death.relation + "|" + death.what;
      const share = deaths.length > MOST_ROWS && death.relation !== "culprit" && shared.get(name);
      if (share) share.push(death);
      else {
        const row = [death];
        rows.push(row);
        if (death.relation !== "culprit") shared.set(name, row);
      }
    }
    return rows;
  }

  const percent = (at, from, to) => (100 * (at - from)) / (to - from) + "%";
  const within = (at, from, to) => Math.max(from, Math.min(to, at));

  function axis(from, to, zero, words) {
    return h("div.axis", { "aria-hidden": "true" }, rg.ticks(from - zero, to - zero, 6).map((tick) => h("span", { style: { left: percent(tick + zero, from, to) } }, words(tick))));
  }

  function overview(view, deaths, stops, zoom) {
    const end = Math.max(view.now_s || 0, zoom.to, 0.001), pad = end * 0.01, from = -pad, to = end + pad;
    const marks = deaths.map((death) => h("i.mark", { "data-sign": death.relation || "ended", style: { left: percent(death.at_s, from, to) } }));
    return h("div.track", { role: "img", "aria-label": "the whole attempt, " + rg.span(end) + "; the first failure was after " + rg.span(zoom.first) },
      h("div.line", null,
        h("i.zoomed", { style: { left: percent(within(zoom.from, from, to), from, to), width: (100 * (zoom.to - zoom.from)) / (to - from) + "%" } }),
        stops.map((stop) => h("i.stop", { style: { left: percent(stop.at_s, from, to) } })), marks),
      axis(from, to, 0, (tick) => (tick === 0 ? "launch" : rg.span(tick))));
  }

  // One mark is enough for those that are seen at one instant.
  const instants_of = (row) => row.filter((death, i) => row.findIndex((other) => other.at_s === death.at_s) === i).slice(0, 100);

  // Orders of one kind and reason as one line, whomever they were for.
  function merged(stops) {
    const found = [], known = new Map();
    for (const stop of stops) {
      const parts = /^(\S+) to ranks? ([\d, -]+): (.*)$/.exec(stop.what), name = parts ? parts[1] + ":" + parts[3] : null;
      const ids = parts ? parts[2].split(", ").flatMap((one) => { const [a, b] = one.split("-").map(Number); return Array.from({ length: (b === undefined ? a : b) - a + 1 }, (_, i) => a + i); }) : [];
      if (name !== null && known.has(name)) known.get(name).ids.push(...ids);
      else {
        const entry = { at_s: stop.at_s, what: stop.what, parts, ids };
        found.push(entry);
        if (name !== null) known.set(name, entry);
      }
    }
    return found.map((one) => ({ at_s: one.at_s, what: one.parts ? one.parts[1] + " to " + rg.list(one.ids) + ": " + one.parts[3] : one.what }));
  }

  function line(row, zoom) {
    const first = row[0], many = row.length > 1, ids = row.map((death) => death.rank);
    const from = Math.min(...row.map(start)), to = Math.max(...row.map((death) => death.at_s));
    const beyond = from > zoom.to, before = to < zoom.from;
    const offset = (at) => (Math.abs(at - zoom.first) < 5e-7 ? "first" : (at > zoom.first ? "+" : "") + rg.span(at - zoom.first));
    const instants = many && to - from > 5e-6 ? offset(from) + " to " + offset(to) : offset(from) + (start(first) < first.at_s - 5e-6 ? ", gone " + offset(to) : "");
    const sign = first.relation || "ended";
    return h("li", { "data-sign": sign, "data-key": "d" + ids[0] + first.at_s },
      h("span.who", null, rg.icon(sign), many ? h("span", { title: rg.list(ids, 60) }, rg.list(ids, 4)) : h("button.link", { type: "button", "data-act": "rank", "data-rank": first.rank }, rg.call(first.rank))),
      h("span.lane", { "aria-hidden": "true" },
        beyond || before || to - from < 1e-6 ? null : h("i.dying", { style: { left: percent(within(from, zoom.from, zoom.to), zoom.from, zoom.to), width: (100 * (within(to, zoom.from, zoom.to) - within(from, zoom.from, zoom.to))) / (zoom.to - zoom.from) + "%" } }),
        instants_of(row).map((death) => (beyond || before ? null : h("i.mark", { style: { left: percent(within(death.at_s, zoom.from, zoom.to), zoom.from, zoom.to) } }))),
        beyond ? h("i.beyond", null, "later ›") : before ? h("i.before", null, "‹ earlier") : null),
      h("span.when", { title: rg.at(from) ? rg.instant(rg.at(from)) : null }, instants),
      h("span.what", null, first.what, first.cause ? h("span.dim", null, " " + first.cause) : null));
  }

  function draw(view) {
    const deaths = view.deaths, stops = view.stops || [], zoom = window_of(deaths, stops), rows = rows_of(deaths);
    const failed = deaths.filter(own).length, near = stops.filter((stop) => stop.at_s >= zoom.from && stop.at_s <= zoom.to);
    return [
      overview(view, deaths, stops, zoom),
      h("h3.zoom", { "data-key": "zoom" }, rg.span(zoom.to - zoom.from) + (failed ? " around the first failure, enlarged" : " of the end, enlarged"), h("span.dim", null, " first at " + (rg.at(zoom.first) ? rg.instant(rg.at(zoom.first)) : rg.span(zoom.first)))),
      h("div.zoomed", { "data-key": "rows" },
        h("ol.deaths", null, rows.map((row) => line(row, zoom))),
        h("div.under", { "aria-hidden": "true" }, h("div.lane", null,
          rg.ticks(zoom.from - zoom.first, zoom.to - zoom.first, 6).map((tick) => h("i.grid", { style: { left: percent(tick + zoom.first, zoom.from, zoom.to) } }, h("span", null, Math.abs(tick) < 1e-9 ? "0" : (tick > 0 ? "+" : "") + rg.span(tick)))),
          near.map((stop) => h("i.stop", { style: { left: percent(stop.at_s, zoom.from, zoom.to) } }))))),
      stops.length ? h("ul.stops", { "data-key": "stops" }, merged(stops).slice(0, 8).map((stop) => h("li", null, h("i.stop"), h("b", null, Math.abs(stop.at_s - zoom.first) < 5e-7 ? "at once" : stop.at_s > zoom.first ? "+" + rg.span(stop.at_s - zoom.first) : rg.span(stop.at_s) + " after launch"), " " + stop.what))) : null,
    ];
  }

  rg.parts.push({ id: "deaths", has: (view) => (view.deaths || []).length > 0, draw });
})();
