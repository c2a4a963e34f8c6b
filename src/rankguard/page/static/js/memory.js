// Memory: what all use together against the limit, and what each rank holds. Drawn by uPlot (vendor/), told again as a table.
(function () {
  "use strict";
  const rg = window.rg, h = rg.h;
  const HEIGHT = 210, NAMED = 8, TOP = 4;
  const LINES = ["--line1", "--line2", "--line3", "--line4", "--line5", "--line6", "--line7"], DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [], [7, 4], [2, 3]];
  const STEPS = [];
  for (let power = 0; power < 50; power++) STEPS.push(Math.pow(2, power));
  let charts = [], drawnFor = "";

  const last = (values) => { // the last that is known
    for (let i = values.length - 1; i >= 0; i--) if (values[i] !== null && values[i] !== undefined) return values[i];
    return null;
  };
  const most = (values) => values.reduce((a, b) => (b !== null && b > a ? b : a), 0);

  // Who gets a colour of its own: all where they are few, else the culprit, who was killed, and the greatest.
  function named(memory, culprit) {
    const ids = Object.keys(memory.ranks).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    if (ids.length <= NAMED) return ids;
    const marked = new Set([culprit, ...memory.kills.map((kill) => String(kill.rank))].filter((id) => ids.includes(id)));
    const greatest = [...ids].sort((a, b) => most(memory.ranks[b]) - most(memory.ranks[a])).slice(0, TOP);
    return ids.filter((id) => marked.has(id) || greatest.includes(id)).slice(0, 12);
  }

  function colour(name) {
    const probe = document.getElementById("foot");
    const kept = probe.style.color;
    probe.style.color = "var(" + name + ")";
    const found = getComputedStyle(probe).color;
    probe.style.color = kept;
    return found;
  }

  function lines(memory, view) {
    const culprit = rg.culprit(view), chosen = named(memory, culprit);
    let next = 0;
    return Object.keys(memory.ranks).sort((a, b) => chosen.includes(a) - chosen.includes(b) || (a === culprit) - (b === culprit)).map((id) => {
      if (id === culprit) return { id, stroke: "--culprit", width: 2.6, dash: [] };
      if (!chosen.includes(id)) return { id, stroke: "--faint", width: 1, dash: [], quiet: true };
      const here = next++ % LINES.length;
      return { id, stroke: LINES[here], width: 1.6, dash: DASHES[here] };
    });
  }

  function marks(u, memory, limit) {
    const { ctx, bbox } = u, ratio = window.devicePixelRatio || 1;
    const text = (words, x, y, align, tint) => {
      ctx.font = 11 * ratio + "px system-ui, sans-serif";
      ctx.textAlign = align;
      ctx.textBaseline = "bottom";
      ctx.fillStyle = tint;
      ctx.fillText(words, x, y);
    };
    const stroke = (x1, y1, x2, y2, tint, dash, width) => {
      ctx.beginPath();
      ctx.setLineDash(dash.map((one) => one * ratio));
      ctx.lineWidth = width * ratio;
      ctx.strokeStyle = tint;
      ctx.moveTo(x1, y1);
      ctx.lineTo(x2, y2);
      ctx.stroke();
    };
    ctx.save();
    const red = colour("--culprit"), dim = colour("--dim");
    if (limit && memory.limit_bytes !== null && memory.limit_bytes <= u.scales.y.max) {
      const y = u.valToPos(memory.limit_bytes, "y", true);
      stroke(bbox.left, y, bbox.left + bbox.width, y, colour("--limit"), [6, 3], 1.6);
      text("limit " + rg.bytes(memory.limit_bytes), bbox.left + 6 * ratio, y - 3 * ratio, "left", colour("--limit"));
    }
    if (memory.near_s !== null && memory.near_s !== undefined) {
      const x = u.valToPos(memory.near_s, "x", true);
      stroke(x, bbox.top, x, bbox.top + bbox.height, dim, [2, 3], 1);
      text("warned", x - 4 * ratio, bbox.top + bbox.height - 4 * ratio, "right", dim);
    }
    memory.kills.forEach((kill, i) => {
      const x = u.valToPos(kill.at_s, "x", true);
      stroke(x, bbox.top, x, bbox.top + bbox.height, red, [], 1.6);
      if (i < 3) text("✕ " + rg.clean(rg.call(kill.rank)), x - 4 * ratio, bbox.top + (limit ? 34 : 16) * ratio + i * 14 * ratio, "right", red);
    });
    ctx.restore();
  }

  function axes() {
    const ink = colour("--dim"), grid = { stroke: colour("--grid"), width: 1 }, font = "11px system-ui, sans-serif";
    return [
      { stroke: ink, grid, ticks: grid, font, values: (_u, at) => at.map((x) => (x === 0 ? "launch" : rg.span(x).replace(/\.0+ s$/, " s"))), space: 70 },
      { stroke: ink, grid, ticks: { show: false }, font, size: 64, incrs: STEPS, values: (_u, at) => at.map((y) => (y === 0 ? "0" : rg.bytes(y).replace(/\.0 /, " "))) },
    ];
  }

  function chart(host, data, series, memory, limit) {
    const ranging = (_u, _least, greatest) => {
      const top = Math.max(greatest || 0, limit && memory.limit_bytes && memory.limit_bytes < (greatest || 0) * 2.5 ? memory.limit_bytes : 0);
      return [0, Math.max(1024, top * 1.12)];
    };
    const u = new window.uPlot({
      width: Math.max(240, host.clientWidth), height: HEIGHT, legend: { show: false },
      cursor: { sync: { key: "memory", setSeries: false }, y: false, drag: { x: true, y: false }, points: { size: 5 } },
      scales: { x: { time: false }, y: { range: ranging } }, axes: axes(),
      series: [{}, ...series],
      hooks: { draw: [(one) => marks(one, rg.data.memory, limit)], setCursor: [(one) => read(one.cursor.idx)] },
    }, data, host);
    return u;
  }

  function stroke_of(line) {
    return { stroke: colour(line.stroke), width: line.width, dash: line.dash, spanGaps: true, points: { show: rg.data.memory.at_s.length < 12 } };
  }

  // The values under the cursor, or the newest; in the list below the charts.
  function read(index) {
    const memory = rg.data.memory, list = document.querySelectorAll("#memory [data-value]");
    const at = index === null || index === undefined ? null : memory.at_s[index];
    for (const cell of list) {
      const id = cell.dataset.value, values = id === "used" ? memory.used_bytes : memory.ranks[id];
      cell.textContent = values ? rg.bytes(at === null ? last(values) : values[index]) : "–";
    }
    const where = document.querySelector("#memory .read");
    if (where) where.textContent = at === null ? "" : rg.span(at) + " after launch" + (rg.at(at) ? ", " + rg.instant(rg.at(at)) : "");
  }

  function after() {
    const host = document.querySelector("#memory .charts"), memory = rg.data.memory, view = rg.data.view;
    if (!host) return;
    const shape = [rg.culprit(view), Object.keys(memory.ranks).length, memory.limit_bytes, named(memory, rg.culprit(view)).join(), memory.at_s.length < 12, rg.state.themed, host.clientWidth].join("|");
    const drawn = lines(memory, view), each = [memory.at_s, ...drawn.map((line) => memory.ranks[line.id])], all = [memory.at_s, memory.used_bytes];
    if (shape !== drawnFor) {
      drawnFor = shape;
      charts.forEach((u) => u.destroy());
      host.replaceChildren();
      charts = [];
      const used = memory.used_bytes.some((value) => value !== null);
      const figure = (title) => {
        const box = h("div.plot"), one = h("figure", null, h("figcaption", null, title), box);
        host.append(one);
        return box;
      };
      const boxes = [used ? figure("All together" + (memory.limit_bytes ? ", and the limit" : "")) : null, drawn.length ? figure("Each rank") : null];
      if (boxes[0]) charts.push(chart(boxes[0], all, [{ ...stroke_of({ stroke: "--line1", width: 2, dash: [] }), fill: colour("--fill") }], memory, true));
      if (boxes[1]) charts.push(chart(boxes[1], each, drawn.map(stroke_of), memory, false));
    } else {
      const used = charts.length === 2 || !drawn.length;
      if (used && charts[0]) charts[0].setData(all);
      if (drawn.length && charts.length) charts[charts.length - 1].setData(each);
    }
    if (!document.querySelector("#memory .plot:hover")) read(null);
  }

  function draw(view) {
    const memory = rg.data.memory, culprit = rg.culprit(view), ids = named(memory, culprit), drawn = lines(memory, view);
    const used = last(memory.used_bytes);
    const [killed = null, ...later] = memory.kills, told = view.verdict && view.verdict.culprit;
    const first = killed && told && String(killed.rank) === culprit ? told.elapsed_s : killed && killed.at_s; // as the verdict says
    const limit = memory.limit_bytes ? " of " + rg.bytes(memory.limit_bytes) : "";
    const sentence = killed
      ? rg.call(killed.rank).replace(/^r/, "R") + " was killed " + rg.span(first) + " after launch" + (later.length ? ", " + rg.list(later.map((kill) => kill.rank)) + " after it" : "") + "; all together used up to " + rg.bytes(most(memory.used_bytes)) + limit + "."
      : used !== null ? rg.bytes(used) + limit + (view.live ? " in use" : " were in use at the end") + "; at most " + rg.bytes(most(memory.used_bytes)) + "." : null;
    return [
      sentence ? h("p.lead", { "data-key": "lead" }, sentence, memory.limit_from ? h("span.dim", null, " The limit: " + memory.limit_from) : null) : null,
      h("div.charts" + (used !== null && drawn.length ? ".pair" : ""), { "data-key": "charts", "data-keep": "", role: "img", "aria-label": "memory over time; the table below holds the same numbers" }),
      h("ul.values", { "data-key": "values" },
        used !== null ? h("li", { "data-key": "used" }, swatch({ stroke: "--line1", dash: [], width: 2 }), h("b", null, "all"), " ", h("span", { "data-value": "used", "data-keep": "" })) : null,
        ids.map((id) => {
          const line = drawn.find((one) => one.id === id);
          return h("li", { "data-key": id }, swatch(line), h("b", null, rg.short(rg.find(id) || { rank: id })), id === culprit ? rg.icon("culprit", "failed first") : null, " ", h("span", { "data-value": id, "data-keep": "" }));
        }),
        drawn.length > ids.length ? h("li", { "data-key": "others" }, swatch({ stroke: "--faint", dash: [], width: 1 }), (drawn.length - ids.length) + " others") : null),
      h("p.read.dim", { "data-key": "read", "data-keep": "" }),
      h("details", { "data-key": "table" }, h("summary", null, "As a table"), table(view, memory)),
    ];
  }

  function swatch(line) {
    return rg.svg("svg", { class: "key", viewBox: "0 0 22 8", "aria-hidden": "true" }, rg.svg("line", { x1: 1, x2: 21, y1: 4, y2: 4, "stroke-width": Math.max(1.5, line.width), "stroke-dasharray": line.dash.join(" ") || null, style: { stroke: "var(" + line.stroke + ")" } }));
  }

  function table(view, memory) {
    const ids = Object.keys(memory.ranks).sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    return h("div.scroll", { tabindex: "0", role: "group", "aria-label": "memory of each rank" }, h("table", null,
      h("thead", null, h("tr", null, ["rank", "last", "most", "growth"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, ids.map((id) => {
        const rank = rg.find(id) || {};
        return h("tr", { "data-key": id }, h("th", { scope: "row" }, rg.call(id)), h("td", null, rg.bytes(last(memory.ranks[id]))), h("td", null, rg.bytes(most(memory.ranks[id]))), h("td", null, rank.growth_bytes_s ? rg.bytes(rank.growth_bytes_s) + "/s" : "–"));
      }))));
  }

  rg.parts.push({ id: "memory", has: () => { const memory = rg.data.memory; return memory && (memory.at_s || []).length > 1 && (Object.keys(memory.ranks).length > 0 || memory.used_bytes.some((one) => one !== null)); }, draw, after });
})();
