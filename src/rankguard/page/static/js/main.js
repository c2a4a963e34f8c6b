// The page as a whole: draws all parts anew from the data, hears the reader, tells changes aloud. Read first: base.js.
(function () {
  "use strict";
  const rg = window.rg, h = rg.h;
  const NAMES = { verdict: "Verdict", ranks: "Ranks", deaths: "Endings", memory: "Memory", startup: "Start-up", signs: "Signs of life", stacks: "Stacks", output: "Output", attempts: "Attempts", doctor: "Machine" };
  const ORDER = ["ranks", "deaths", "memory", "startup", "signs", "stacks", "output", "attempts", "doctor"];
  let told = "";
  const $ = (id) => document.getElementById(id);

  function part(one, view) {
    const section = $(one.id), body = section.querySelector("[data-body]");
    let has = false;
    try {
      has = Boolean(one.has(view));
      if (has) {
        section.hidden = false;
        if (one.before) one.before(view);
        rg.patch(body, one.draw(view));
        if (one.after) one.after(view);
      }
    } catch (error) { // one part that cannot be drawn takes no other with it
      console.error(one.id, error);
      rg.patch(body, h("p.dim", null, "This part cannot be shown: " + error.message));
      has = true;
    }
    section.hidden = !has;
    return has;
  }

  function header(view) {
    rg.patch($("run"), [h("span.id", { title: "the run's id" }, view.run.id), h("code", { title: (view.run.command || []).join(" ") }, (view.run.command || []).join(" "))]);
    const labels = (view.verdict && view.verdict.labels) || {};
    rg.patch($("foot"), [
      h("p", null, "rankguard " + view.rankguard, view.run.folder ? [" · ", h("code", null, view.run.folder)] : "", Object.keys(labels).length ? " · " + Object.entries(labels).map(([key, value]) => key + "=" + value).join(", ") : "", " · as of ", rg.time(view.made_at, 0)),
      h("p", null, h("kbd", null, "/"), " search  ", h("kbd", null, "← ↑ → ↓"), " move in the grid  ", h("kbd", null, "Enter"), " show a rank  ", h("kbd", null, "Esc"), " close")]);
    const culprit = view.verdict && view.verdict.culprit;
    const ready = (view.ranks || []).filter((rank) => rank.ready_s !== null && rank.ready_s !== undefined).length;
    const short = culprit ? "✕ " + (culprit.rank !== null ? "rank " + culprit.rank : culprit.name) + " " + culprit.cause.kind : view.live && view.run.expects_ready && view.state === "starting" ? ready + "/" + view.ranks.length + " ready" : view.state;
    document.title = rg.clean(short + " · " + view.run.id + " · rankguard");
  }

  function clock() {
    const view = rg.data.view;
    if (!view) return;
    const running = view.live && rg.state.lost === null;
    const seconds = view.now_s + (running ? (performance.now() - rg.state.received) / 1000 : 0);
    rg.patch($("clock"), view.live
      ? [h("span.live", { "data-lost": rg.state.lost === null ? null : "" }, rg.state.lost === null ? "live" : "not connected"), h("b", null, rg.coarse(seconds))]
      : [h("span.over", null, rg.state.over ? "run over" : "report"), rg.time(view.verdict && view.verdict.ended_at ? view.verdict.ended_at : view.made_at, 0)]);
    if (rg.state.lost !== null) banner();
  }

  // By its id a run is found in its home only.
  const named = (run) => (run.folder && !run.folder.endsWith("/" + run.id) ? run.folder : run.id);

  function banner() {
    const view = rg.data.view, bar = $("banner");
    let words = null;
    if (rg.state.lost !== null) {
      const ago = rg.coarse((Date.now() - rg.state.lost) / 1000);
      words = view
        ? ["Connection lost " + ago + " ago; trying again. What stands here is as of " + rg.hour(rg.state.asOf) + ". If the run is over: ", h("code", null, "rankguard report " + named(view.run))]
        : ["No answer yet; trying again."];
    } else if (rg.state.over && view) words = ["The run is over (" + view.state + "). This page keeps what it has; the run's own files hold the rest: ", h("code", null, "rankguard report " + named(view.run))];
    bar.hidden = words === null;
    bar.setAttribute("data-kind", rg.state.lost !== null ? "lost" : "over");
    // Whoever listens hears it once, not each second.
    if (words !== null) bar.setAttribute("aria-live", "off");
    rg.patch(bar, words === null ? [] : h("p", null, words));
  }

  function tell(view) {
    const culprit = view.verdict && view.verdict.culprit;
    const now = rg.state.lost !== null ? "connection lost" : culprit ? view.verdict.statement : view.state;
    const key = now + "|" + view.state + "|" + rg.state.over;
    if (key === told) return;
    if (told) $("told").textContent = rg.clean((rg.state.over ? "The run is over. " : "") + (rg.state.lost === null && !culprit ? view.state_line || now : now));
    told = key;
  }

  rg.redraw = function () {
    const view = rg.data.view;
    banner();
    if (!view) return;
    header(view);
    rg.drawVerdict(view);
    NAMES.ranks = view.run.watch ? "Processes" : "Ranks";
    if ($("ranks-h").textContent !== NAMES.ranks) $("ranks-h").textContent = NAMES.ranks;
    const shown = ORDER.filter((id) => part(rg.parts.find((one) => one.id === id), view));
    rg.patch($("nav"), ["verdict", ...shown].map((id) => h("a", { href: "#" + id, "data-key": id }, NAMES[id])));
    clock();
    tell(view);
    document.documentElement.setAttribute("data-drawn", String(Number(document.documentElement.getAttribute("data-drawn") || 0) + 1));
  };

  // ── The reader ─────────────────────────────────────────────────────────────────────────────────────────────────

  function theme() {
    $("theme").querySelector("span").textContent = rg.theme();
    $("theme").setAttribute("aria-label", "colours: " + rg.theme() + "; press to change");
    rg.state.themed = (rg.state.themed || 0) + 1;
    if (rg.data.view) rg.redraw();
  }
  rg.acts.theme = function () {
    rg.nextTheme();
    theme();
  };

  document.addEventListener("click", (event) => {
    const element = event.target.closest("[data-act]");
    if (element && element.nodeName !== "SELECT") rg.acts[element.dataset.act](element, event);
  });
  document.addEventListener("change", (event) => {
    if (event.target.nodeName === "SELECT" && event.target.dataset.act) rg.acts[event.target.dataset.act](event.target, event);
  });
  document.addEventListener("input", (event) => {
    if (event.target.id === "search") rg.search(event.target.value);
  });
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const at = event.target, typing = /^(INPUT|SELECT|TEXTAREA)$/.test(at.nodeName), search = $("search");
    if (event.key === "/" && !typing && search) {
      event.preventDefault();
      search.focus();
      search.select();
      search.scrollIntoView({ block: "center" });
    } else if (event.key === "Escape") {
      if (at.id === "search") (at.value = ""), rg.search(""), at.blur();
      else if (rg.state.selected !== null) rg.acts.close();
    } else if (event.key === "Enter" && at.id === "search") rg.acts.hit(at, event, event.shiftKey ? -1 : 1);
    else if (at.classList && at.classList.contains("tile") && /^(Arrow|Home$|End$)/.test(event.key)) {
      event.preventDefault();
      rg.moveInGrid(at, event.key);
    }
  });

  let width = window.innerWidth;
  window.addEventListener("resize", () => {
    if (window.innerWidth !== width && rg.data.view) (width = window.innerWidth), rg.redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", theme);
  setInterval(clock, 1000);
  theme();
  rg.begin();
})();
