// Attempts, and what `rankguard doctor` found.
(function () {
  "use strict";
  const rg = window.rg, h = rg.h;
  const STATE = { ok: ["ready", "there"], warn: ["warn", "look at this"], missing: ["lost", "missing"] };

  function attempts(view) {
    const longest = Math.max(0.001, view.now_s || 0, ...view.attempts.map((one) => one.lasted_s || 0));
    const bar = (seconds, sign) => h("span.lane", { "aria-hidden": "true" }, h("i.bar", { "data-sign": sign, style: { width: (100 * (seconds || 0)) / longest + "%" } }));
    const verdict = view.verdict || {}, culprit = verdict.culprit;
    const now = [String((view.run.attempt || 0) + 1), bar(view.now_s, rg.data.view.live ? "running" : culprit ? "culprit" : "finished"), rg.span(view.now_s), culprit ? culprit.cause.kind : view.state, culprit ? verdict.statement : view.state_line || verdict.statement || "", view.live ? "this one" : "the last"];
    const rows = view.attempts.map((one) => [String(one.attempt + 1), bar(one.lasted_s, "culprit"), rg.span(one.lasted_s), one.cause, one.statement, one.restarted]);
    return h("div.scroll", { tabindex: "0", role: "group", "aria-label": "table of attempts" }, h("table.attempts", null,
      h("thead", null, h("tr", null, ["attempt", h("span.sr", null, "as a bar"), "lasted", "cause", "what happened", "then"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", null, [...rows, now].map((cells) => h("tr", null, cells.map((cell, i) => (i === 0 ? h("th", { scope: "row" }, cell) : h("td", null, cell))))))));
  }

  function doctor(view) {
    const order = ["missing", "warn", "ok"], rows = [...view.doctor].sort((a, b) => order.indexOf(a.state) - order.indexOf(b.state));
    return h("ul.doctor", null, rows.map((one) => {
      const [icon, says] = STATE[one.state] || ["lost", one.state];
      return h("li", { "data-state": one.state }, rg.icon(icon, says), h("div", null, h("b", null, one.name), " ", one.says, one.costs ? h("p.dim", null, "costs: " + one.costs) : null, one.get ? h("p", null, "to get it: ", rg.rich(one.get)) : null));
    }));
  }

  rg.parts.push({ id: "attempts", has: (view) => (view.attempts || []).length > 0, draw: attempts });
  rg.parts.push({ id: "doctor", has: (view) => (view.doctor || []).length > 0, draw: doctor });
})();
