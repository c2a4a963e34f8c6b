// What every part stands on: elements whose text is only ever text, and the one state. Read next: words.js, patch.js.
(function () {
  "use strict";
  const rg = (window.rg = window.rg || {});
  const SVG = "http://www.w3.org/2000/svg";
  // Colours of terminals (CSI … m) and titles (OSC …) say nothing here; other controls and marks that turn the
  // direction of text are shown as what they are. Tabs stay.
  const ESCAPES = /\x1b\[[0-9;:]*m|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)/g;
  const CONTROLS = /[\x00-\x08\x0a-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ufeff]/g;

  function shown(mark) {
    const code = mark.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (code === 0x7f) return "\u2421";
    return "<U+" + code.toString(16).toUpperCase().padStart(4, "0") + ">";
  }

  // Text of others as harmless text; line ends are kept where `lines` says so.
  rg.clean = function (text, lines) {
    text = String(text).replace(ESCAPES, "");
    return text.replace(CONTROLS, (mark) => (mark === "\n" && lines ? mark : shown(mark)));
  };

  function fill(element, kids) {
    for (const kid of kids) {
      if (Array.isArray(kid)) fill(element, kid);
      else if (kid instanceof Node) element.appendChild(kid);
      else if (kid !== null && kid !== undefined && kid !== false && kid !== "") element.appendChild(document.createTextNode(rg.clean(kid, true)));
    }
  }

  function make(element, props, kids) {
    for (const [name, value] of Object.entries(props || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "style") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
      else element.setAttribute(name, value === true ? "" : rg.clean(value, true));
    }
    fill(element, kids);
    return element;
  }

  // rg.h("p.note", {title: "…"}, "text", child, [children], null)
  rg.h = function (what, props, ...kids) {
    const [tag, ...classes] = what.split(".");
    const element = document.createElement(tag);
    if (classes.length) element.className = classes.join(" ");
    return make(element, props, kids);
  };

  rg.svg = function (tag, props, ...kids) {
    return make(document.createElementNS(SVG, tag), props, kids);
  };

  rg.icon = function (name, title) {
    const props = title ? { class: "i", role: "img", "aria-label": title } : { class: "i", "aria-hidden": "true" };
    return rg.svg("svg", props, title ? rg.svg("title", null, title) : null, rg.svg("use", { href: "#i-" + name }));
  };

  // ── State ──────────────────────────────────────────────────────────────────────────────────────────────────────

  rg.data = { view: null, memory: null, logs: new Map() };
  rg.state = { selected: null, focus: null, log: null, query: "", hit: 0, all: {}, lost: null, over: false };
  rg.acts = {}; // data-act → function (element, event)
  rg.parts = []; // {id, has(view), draw(view) → nodes, after()}

  rg.id = (rank) => String(rank.id !== undefined && rank.id !== null ? rank.id : rank.rank !== null && rank.rank !== undefined ? rank.rank : rank.name || "pid " + rank.pid);
  rg.find = (id) => (rg.data.view.ranks || []).find((rank) => rg.id(rank) === String(id)) || null;
  rg.culprit = function (view) {
    const found = (view.ranks || []).find((rank) => rank.relation === "culprit");
    return found ? rg.id(found) : null;
  };
  // How a rank is to be called: `rank 5`; a process of a watched engine by its name, its role, or its pid.
  rg.named = (rank) => rg.data.view.run.watch || rank.rank === null || rank.rank === undefined;
  const name = (rank) => rank.name || (rank.role && rank.role !== "default" ? rank.role + (rank.index !== null && rank.index !== undefined ? " " + rank.index : "") : null) || (rank.pid ? "pid " + rank.pid : rg.id(rank));
  rg.call = function (id) {
    const rank = typeof id === "object" ? id : rg.find(id);
    return rank ? (rg.named(rank) ? name(rank) : "rank " + rank.rank) : "rank " + id;
  };
  rg.short = (rank) => (rg.named(rank) ? name(rank) : String(rank.rank));

  // What a rank is now, as one word: how it ended once the verdict knows, else its phase.
  rg.sign = function (rank) {
    if (rank.relation === "culprit") return "culprit";
    if (rank.phase === "ended" || rank.phase === "lost" || (rank.relation && !rg.data.view.live)) return rank.phase === "lost" ? "lost" : rank.relation || "ended";
    return rank.phase;
  };
  rg.SAYS = {
    waiting: "not started yet", starting: "starting", ready: "ready", running: "running", stopping: "being stopped", ended: "ended",
    lost: "lost with its node", culprit: "failed first", collateral: "failed because of it", independent: "failed by itself",
    stopped: "stopped by rankguard", finished: "finished",
  };
})();
