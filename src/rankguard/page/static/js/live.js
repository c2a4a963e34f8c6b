// Where the data comes from: the page itself (a report), or the server of a run that lives. Healing is here, too: what is
// lost is told, what is known stays, and the next answer goes on from there.
(function () {
  "use strict";
  const rg = window.rg;
  const EACH_MS = 1000, SOON_MS = 250, PATIENCE_MS = 10000, LAST_MS = 4000;
  const EVENTS = ["run", "fact", "order", "note", "attempt", "gap"];
  let source = null, timer = null, due = 0, busy = false, stopped = false, tries = 0;

  function take(view) {
    const old = rg.data.view;
    if (old && old.run.id !== view.run.id) (rg.data.logs = new Map()), (rg.data.memory = null), (rg.state.selected = rg.state.log = null);
    else if (old && old.run.attempt !== view.run.attempt) (rg.data.logs = new Map()), (rg.data.memory = null);
    rg.data.view = view;
    rg.state.received = performance.now();
    rg.state.asOf = new Date();
  }

  function whole(data) {
    take(data.view);
    if (data.memory) rg.data.memory = data.memory;
    for (const log of data.logs || []) if (log && (Object.keys(log.streams).length || !rg.data.logs.has(String(log.rank)))) rg.data.logs.set(String(log.rank), log);
  }

  // Points that are new behind those that are known.
  function join(fresh) {
    const old = rg.data.memory;
    if (!old || !old.at_s.length || !fresh.at_s.length || fresh.at_s[0] <= old.at_s[old.at_s.length - 1] || old.at_s.length > 1500) {
      if (!old || fresh.at_s.length) rg.data.memory = fresh;
      else Object.assign(old, { limit_bytes: fresh.limit_bytes, kills: fresh.kills, near_s: fresh.near_s });
      return;
    }
    const had = old.at_s.length, more = fresh.at_s.length, none = (count) => new Array(count).fill(null);
    const ranks = {};
    for (const id of new Set([...Object.keys(old.ranks), ...Object.keys(fresh.ranks)])) ranks[id] = [...(old.ranks[id] || none(had)), ...(fresh.ranks[id] || none(more))];
    rg.data.memory = { ...fresh, at_s: [...old.at_s, ...fresh.at_s], used_bytes: [...old.used_bytes, ...fresh.used_bytes], ranks };
  }

  async function get(path) {
    const stop = new AbortController(), clock = setTimeout(() => stop.abort(), PATIENCE_MS);
    try {
      const answer = await fetch(path, { signal: stop.signal, cache: "no-store", headers: { Accept: "application/json" } });
      if (answer.status === 503 || answer.status === 404) return null;
      if (!answer.ok) throw new Error(path + ": " + answer.status);
      return await answer.json();
    } finally {
      clearTimeout(clock);
    }
  }

  async function round() {
    const view = await get("view.json");
    if (view) take(view);
    if (!rg.data.view) return;
    const memory = rg.data.memory, full = !memory || !memory.at_s.length || memory.at_s.length > 1500;
    const fresh = await get("memory.json" + (full ? "" : "?since=" + memory.at_s[memory.at_s.length - 1]));
    if (fresh && fresh.at_s) full ? (rg.data.memory = fresh) : join(fresh);
    const id = rg.shownLog(rg.data.view);
    if (id !== null) {
      const log = await get("log.json?rank=" + encodeURIComponent(id));
      if (log && log.streams) rg.data.logs.set(id, log);
    }
  }

  async function now() {
    if (busy || stopped) return;
    busy = true;
    clearTimeout(timer);
    const began = performance.now();
    try {
      await round();
      if (stopped) return;
      rg.state.lost = null;
      tries = 0;
      listen();
      if (rg.data.view && !rg.data.view.live) over();
    } catch (_) {
      if (stopped) return;
      rg.state.lost = rg.state.lost || Date.now();
      tries++;
      if (source) source.close(); // its own tries would be on top of ours
    } finally {
      busy = false;
    }
    rg.redraw();
    if (!stopped && tries) timer = setTimeout(now, Math.min(LAST_MS, SOON_MS * Math.pow(2, tries - 1)));
    else if (!stopped) timer = setTimeout(now, document.hidden ? EACH_MS * 5 : due ? SOON_MS : Math.max(SOON_MS, EACH_MS - (performance.now() - began)));
    due = 0;
  }

  function soon() {
    if (due || stopped || tries) return;
    due = 1;
    if (!busy) clearTimeout(timer), (timer = setTimeout(now, SOON_MS));
  }

  function listen() {
    if (source && source.readyState !== EventSource.CLOSED) return;
    source = new EventSource("events");
    for (const name of EVENTS) source.addEventListener(name, soon);
    source.addEventListener("over", (event) => {
      whole(JSON.parse(event.data));
      over();
      rg.redraw();
    });
    source.onerror = soon;
  }

  function over() {
    stopped = true;
    clearTimeout(timer);
    rg.state.lost = null;
    rg.state.over = true;
    if (source) source.close();
  }

  rg.live = null;
  rg.begin = function () {
    const inside = document.getElementById("rankguard-data");
    if (inside) {
      whole(JSON.parse(inside.textContent));
      rg.redraw();
      return;
    }
    rg.live = { wantLog: soon };
    listen();
    now();
    document.addEventListener("visibilitychange", () => document.hidden || now());
  };
})();
