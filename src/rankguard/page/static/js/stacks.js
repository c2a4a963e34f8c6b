// What the ranks of a hang stood in, those with the same stack together, the odd one out first.
(function () {
  "use strict";
  const rg = window.rg, h = rg.h, TOP = 8;

  function card(group, index) {
    const frames = group.frames || [];
    return h("article.stack", { "data-odd": group.odd ? "" : null, "data-key": "s" + group.ranks.join(",") },
      h("h3", null, group.odd ? rg.icon("independent") : null, h("span", null, rg.list(group.ranks)), group.odd ? h("span.chip.kind", null, "the odd one out") : null),
      h("p.lead", null, rg.rich(group.title)), group.why ? h("p.dim", null, rg.rich(group.why)) : null,
      frames.length ? h("ol.frames", null, frames.slice(0, TOP).map((frame) => h("li", null, frame))) : null,
      frames.length > TOP ? h("details", { "data-key": "more" }, h("summary", null, rg.count(frames.length - TOP, "more frame")), h("ol.frames", null, frames.slice(TOP).map((frame) => h("li", null, frame)))) : null);
  }

  rg.parts.push({ id: "stacks", has: (view) => (view.stacks || []).length > 0, draw: (view) => h("div.stacks", null, [...view.stacks].sort((a, b) => Number(b.odd) - Number(a.odd)).map(card)) });
})();
