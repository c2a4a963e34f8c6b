// The end of each rank's output, the culprit's first, with search in it and in all that are here.
(function () {
  "use strict";
  const rg = window.rg, h = rg.h;
  const seen = new Map(); // stream → {lines, base}: lines keep their names while the tail moves on

  const needle = () => rg.state.query.toLowerCase();

  function order(view) {
    const rank = { culprit: 0, independent: 1, collateral: 2 };
    const place = (one) => (rank[rg.sign(one)] !== undefined ? rank[rg.sign(one)] : one.either ? 1 : 3);
    return view.ranks.filter((one) => one.log_path || rg.data.logs.has(rg.id(one))).map((one, i) => [place(one), i, one]).sort((a, b) => a[0] - b[0] || a[1] - b[1]).map((entry) => entry[2]);
  }

  rg.shownLog = function (view) {
    const ranks = order(view);
    if (rg.state.log !== null && ranks.some((rank) => rg.id(rank) === rg.state.log)) return rg.state.log;
    return ranks.length ? rg.id(ranks[0]) : null;
  };

  // How far the tail has moved since it was last drawn: so that a line that is still there stays the same element.
  function base(name, lines) {
    const before = seen.get(name);
    let start = 0;
    if (before) {
      const old = before.lines, probe = Math.min(lines.length, 20);
      for (let shift = 0; shift <= old.length; shift++) {
        const over = Math.min(probe, old.length - shift);
        let same = true;
        for (let i = 0; i < over && same; i++) same = old[shift + i] === lines[i];
        if (same) {
          start = before.base + shift;
          break;
        }
      }
    }
    seen.set(name, { lines, base: start });
    return start;
  }

  function hits_in(log) {
    const wanted = needle();
    let count = 0;
    if (wanted) for (const stream of Object.values(log.streams)) for (const line of stream.lines) for (let at = -1; (at = line.toLowerCase().indexOf(wanted, at + 1)) >= 0; ) count++;
    return count;
  }

  function line(text, key, hits) {
    text = rg.clean(text);
    const wanted = needle();
    if (!wanted || !text.toLowerCase().includes(wanted)) return h("div", { "data-key": key }, text || "\u00a0");
    const parts = [], low = text.toLowerCase();
    let from = 0;
    for (let at = low.indexOf(wanted); at >= 0; at = low.indexOf(wanted, from)) {
      parts.push(text.slice(from, at), h("mark", { "data-now": hits.count === rg.state.hit ? "" : null }, text.slice(at, at + wanted.length)));
      hits.count++;
      from = at + wanted.length;
    }
    return h("div", { "data-key": key }, parts, text.slice(from));
  }

  function pane(id, name, stream, hits) {
    const first = base(id + "/" + name, stream.lines);
    return h("div.pane", { "data-key": id + name },
      h("h3", null, name, h("span.dim", null, " " + rg.count(stream.lines.length, "line") + (stream.cut ? ", the end of it" : ""))),
      stream.path ? h("p.path.dim", null, stream.path) : null,
      h("div.log", { tabindex: "0", role: "region", "aria-label": name + " of " + rg.call(id), "data-log": "" }, stream.lines.map((text, i) => line(text, "l" + (first + i), hits))));
  }

  function elsewhere(id) {
    if (!needle()) return null;
    const found = [...rg.data.logs].filter(([other]) => other !== id).map(([other, log]) => [other, hits_in(log)]).filter((entry) => entry[1]);
    if (!found.length) return null;
    return h("p.elsewhere", { "data-key": "elsewhere" }, "also in ", found.slice(0, 24).map(([other, count]) => h("button.quiet", { type: "button", "data-act": "log", "data-rank": other }, rg.call(other) + " (" + count + ")")), found.length > 24 ? " and " + (found.length - 24) + " more" : "");
  }

  function draw(view) {
    const ranks = order(view), id = rg.shownLog(view), log = rg.data.logs.get(id), hits = { count: 0 };
    const total = log ? hits_in(log) : 0;
    if (rg.state.hit >= total) rg.state.hit = 0;
    const streams = log ? Object.entries(log.streams).filter(([, stream]) => stream.lines.length) : [];
    const says = (rank) => rg.call(rank) + ({ culprit: ", failed first", independent: ", failed by itself", collateral: ", failed because of it" }[rg.sign(rank)] || "");
    return [
      h("div.tools", { "data-key": "tools" },
        h("label", null, h("span.sr", null, "Output of"), h("select", { "data-act": "log", "data-key": "of" }, ranks.map((rank) => h("option", { value: rg.id(rank), "data-key": rg.id(rank), selected: rg.id(rank) === id }, says(rank))))),
        h("label.search", null, h("span.sr", null, "Search in the output"), h("input", { type: "search", id: "search", placeholder: "search   /", autocomplete: "off", spellcheck: "false", "data-key": "search" })),
        h("span.hits", { role: "status", "data-key": "hits" }, needle() ? (total ? rg.state.hit + 1 + " of " + total : "not here") : ""),
        h("button.quiet", { type: "button", "data-act": "hit", "data-by": "-1", "aria-label": "previous match", disabled: total < 2, "data-key": "back" }, "‹"),
        h("button.quiet", { type: "button", "data-act": "hit", "data-by": "1", "aria-label": "next match", disabled: total < 2, "data-key": "on" }, "›")),
      elsewhere(id),
      streams.length ? h("div.panes", { "data-key": "panes" }, streams.map(([name, stream]) => pane(id, name, stream, hits)))
        : h("p.dim", { "data-key": "none" }, !log ? (rg.data.view.live ? "…" : "The end of this output is not in here.") : "It has said nothing."),
    ];
  }

  // A box that stood at its end stays there; a new one begins there.
  let atEnd = new Map(), shown = null;
  function before() {
    atEnd = new Map();
    for (const box of document.querySelectorAll("#output [data-log]")) atEnd.set(box, box.scrollHeight - box.scrollTop - box.clientHeight < 4);
  }
  function after(view) {
    for (const box of document.querySelectorAll("#output [data-log]")) if (atEnd.get(box) !== false) box.scrollTop = box.scrollHeight;
    const select = document.querySelector("#output select"), id = rg.shownLog(view);
    if (select && select.value !== id && document.activeElement !== select) select.value = id;
    if (shown !== id && rg.live) rg.live.wantLog(id);
    shown = id;
  }

  function show() {
    rg.redraw();
    const now = document.querySelector("#output mark[data-now]"), box = now && now.closest("[data-log]");
    if (box) box.scrollTop += now.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 2;
  }

  rg.acts.log = function (element) {
    rg.state.log = element.nodeName === "SELECT" ? element.value : element.dataset.rank;
    rg.state.hit = 0;
    show();
  };
  rg.acts.hit = function (element, _event, by) {
    const log = rg.data.logs.get(rg.shownLog(rg.data.view)), total = log ? hits_in(log) : 0;
    if (total) rg.state.hit = (rg.state.hit + Number(by || element.dataset.by) + total) % total;
    show();
  };
  rg.search = function (text) {
    rg.state.query = text;
    rg.state.hit = 0;
    show();
  };

  rg.parts.push({ id: "output", has: (view) => order(view).length > 0, draw, before, after });
})();
