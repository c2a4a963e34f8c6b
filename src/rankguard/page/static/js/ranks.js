// The grid of ranks by node and role, and the one that was chosen, in full.
(function () {
  "use strict";
  const rg = window.rg, h = rg.h;
  const ORDER = ["culprit", "independent", "collateral", "lost", "ended", "stopping", "waiting", "starting", "ready", "running", "stopped", "finished"];
  const LARGE = 12, MEDIUM = 96;

  const size = (count) => (count <= LARGE ? "large" : count <= MEDIUM ? "medium" : "small");

  function now(rank) {
    if (rank.ending) return [rg.ending(rank.ending), rank.cause ? rank.cause.kind : null].filter(Boolean).join(", ");
    return [rank.status, rg.progress(rank)].filter(Boolean).join(", ");
  }

  // What a tile says to those who do not see its sign; the small ones say all of it that way.
  function spoken(rank, large) {
    const parts = [rg.SAYS[rg.sign(rank)] || rg.sign(rank), rank.either ? "may as well have been first" : ""];
    if (!large) parts.push(now(rank), rank.held_bytes ? "holds " + rg.bytes(rank.held_bytes) : "");
    return parts.filter(Boolean).join(", ");
  }

  function tile(rank, large, first) {
    const id = rg.id(rank), sign = rg.sign(rank), share = rank.ending ? null : rg.share(rank);
    const chosen = rg.state.selected === id;
    return h("button.tile", {
      type: "button", "data-key": id, "data-act": "rank", "data-rank": id, "data-sign": sign, "data-named": rg.named(rank) ? "" : null, "data-either": rank.either ? "" : null,
      "aria-pressed": chosen ? "true" : "false", title: rg.call(rank) + ": " + spoken(rank, false),
      tabindex: rg.state.focus === id || (rg.state.focus === null && first) ? "0" : "-1",
    },
      h("span.top", null, rg.named(rank) ? null : h("span.sr", null, "rank "), h("b", null, rg.short(rank)), rg.icon(sign)),
      h("span.sr", null, " " + spoken(rank, large)),
      large ? [
        h("span.word", null, rank.cause ? rank.cause.kind : rank.ending && sign !== "finished" ? rg.ending(rank.ending) : sign),
        h("span.what", null, rank.status || (rank.role && rank.role !== "default" ? rank.role : "") || "\u00a0"),
        h("span.mem", null, rank.held_bytes ? rg.bytes(rank.held_bytes) : "\u00a0")] : null,
      share !== null ? h("i.fill", { style: { width: 100 * share + "%" } }) : null);
  }

  function groups(ranks) {
    const nodes = new Set(ranks.map((rank) => rank.node)), roles = new Set(ranks.map((rank) => rank.role || ""));
    const found = new Map();
    for (const rank of ranks) {
      const title = [nodes.size > 1 ? rank.node : "", roles.size > 1 ? rank.role : ""].filter(Boolean).join(" · ");
      if (!found.has(title)) found.set(title, []);
      found.get(title).push(rank);
    }
    return [...found];
  }

  function counts(ranks) {
    const by = new Map();
    for (const rank of ranks) by.set(rg.sign(rank), (by.get(rg.sign(rank)) || 0) + 1);
    return [...by].sort((a, b) => ORDER.indexOf(a[0]) - ORDER.indexOf(b[0]));
  }

  function draw(view) {
    const ranks = view.ranks, density = ranks.length <= MEDIUM && ranks.some(rg.named) ? "large" : size(ranks.length), large = density === "large";
    const start = rg.state.focus !== null && rg.find(rg.state.focus) ? rg.state.focus : rg.culprit(view) || rg.id(ranks[0]);
    if (!rg.find(rg.state.focus)) rg.state.focus = null;
    const lost = (view.nodes || []).filter((node) => node.state && !["ok", "here", "joined", "running", "ended", "over"].includes(node.state));
    return [
      h("ul.legend", { "data-key": "legend", "aria-label": "how many ranks are in which state" }, counts(ranks).map(([sign, count]) => h("li", { "data-sign": sign, "data-key": sign }, rg.icon(sign), h("b", null, String(count)), " " + (rg.SAYS[sign] || sign)))),
      lost.length ? h("p.note", { "data-key": "lost" }, lost.map((node) => node.name + ": " + node.state).join(" · ")) : null,
      h("div.grid." + density, { role: "group", "data-key": "grid", "aria-label": "ranks; arrow keys move, Enter shows one" },
        groups(ranks).map(([title, members]) => h("div.group", { "data-key": "g " + title },
          title ? h("h3", null, title, h("span.dim", null, " " + rg.count(members.length, "rank"))) : null,
          h("div.tiles", null, members.map((rank) => tile(rank, large, rg.id(rank) === start)))))),
      details(view),
    ];
  }

  const row = (name, value, title) => (value === null || value === undefined || value === "" || value === "–" ? null : [h("dt", null, name), h("dd", { title }, value)]);
  const after = (seconds) => (seconds === null || seconds === undefined ? null : [rg.span(seconds) + " after launch", rg.at(seconds) ? h("span.dim", null, " " + rg.instant(rg.at(seconds))) : null]);

  function details(view) {
    const rank = rg.state.selected === null ? null : rg.find(rg.state.selected);
    if (!rank) return null;
    const id = rg.id(rank), sign = rg.sign(rank), silent = rank.last_sign_s === null || rank.last_sign_s === undefined ? null : view.now_s - rank.last_sign_s;
    return h("div.details", { id: "rank", "data-key": "details", tabindex: "-1", role: "region", "aria-label": rg.call(rank) },
      h("div.head", { "data-sign": sign }, rg.icon(sign), h("h3", null, rg.call(rank), h("span.dim", null, " " + (rg.SAYS[sign] || sign))),
        h("button.quiet", { type: "button", "data-act": "output", "data-rank": id }, "Its output"),
        h("button.quiet", { type: "button", "data-act": "close", "aria-label": "close" }, "Close")),
      rank.cause ? h("p", null, rank.cause.statement, h("span.dim", null, " [" + rank.cause.kind + ", " + rank.cause.confidence + "]")) : null,
      h("dl.facts.two", null,
        row("Name", rank.rank !== null ? rank.name : null), row("Role", rank.role === "default" ? null : rank.role),
        row("Where", [rank.node, rank.pid ? "pid " + rank.pid : null, rank.local_rank !== null && rank.local_rank !== undefined ? "local rank " + rank.local_rank : null].filter(Boolean).join(", ")),
        row("Says", [rank.status, rg.progress(rank)].filter(Boolean).join(", ")),
        row("Started", after(rank.spawned_s)), row("Ready", after(rank.ready_s)), row("Told to stop", after(rank.stopping_s)),
        row("Ended", rank.ending ? [rg.ending(rank.ending), rank.ended_s !== null && rank.ended_s !== undefined ? [", ", after(rank.ended_s)] : null] : null),
        row("Last sign", silent === null ? null : (rank.last_sign_by || "seen") + ", " + (rank.ending ? rg.span(rank.last_sign_s) + " after launch" : rg.coarse(silent) + " ago")),
        row("Memory", [rank.held_bytes ? rg.bytes(rank.held_bytes) : null, rank.growth_bytes_s > 1024 ? "+" + rg.bytes(rank.growth_bytes_s) + "/s" : null, rank.peak_bytes ? "peak " + rg.bytes(rank.peak_bytes) : null].filter(Boolean).join(", ")),
        row("Log", rank.ending ? rank.log_path : null)));
  }

  rg.choose = function (id, output) {
    rg.state.selected = id;
    if (id !== null) (rg.state.focus = id), (rg.state.log = id);
    rg.redraw();
    const there = document.getElementById(output ? "output" : "rank");
    if (there && id !== null) there.scrollIntoView({ block: output ? "start" : "nearest" });
  };
  rg.acts.rank = (element) => rg.choose(rg.state.selected === element.dataset.rank && element.classList.contains("tile") ? null : element.dataset.rank);
  rg.acts.output = (element) => rg.choose(element.dataset.rank, true);
  rg.acts.close = function () {
    const id = rg.state.selected;
    rg.choose(null);
    const tile = [...document.querySelectorAll(".tile")].find((one) => one.dataset.rank === id);
    if (tile) tile.focus();
  };

  // Arrow keys in the grid: left and right in order, up and down by what stands there.
  rg.moveInGrid = function (tile, key) {
    const all = [...document.querySelectorAll(".tile")], here = all.indexOf(tile), box = tile.getBoundingClientRect();
    let to = null;
    if (key === "ArrowRight") to = all[here + 1];
    else if (key === "ArrowLeft") to = all[here - 1];
    else if (key === "Home") to = all[0];
    else if (key === "End") to = all[all.length - 1];
    else {
      const down = key === "ArrowDown", middle = box.left + box.width / 2;
      let best = Infinity;
      for (const one of all) {
        const other = one.getBoundingClientRect(), away = down ? other.top - box.top : box.top - other.top;
        if (away < 4) continue;
        const cost = away * 20 + Math.abs(other.left + other.width / 2 - middle);
        if (cost < best) (best = cost), (to = one);
      }
    }
    if (!to) return;
    rg.state.focus = to.dataset.rank;
    tile.tabIndex = -1;
    to.tabIndex = 0;
    to.focus();
  };

  rg.parts.push({ id: "ranks", has: (view) => (view.ranks || []).length > 0, draw });
})();
