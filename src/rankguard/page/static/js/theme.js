// Light or dark: as the reader's system says, unless the switch was used; that is kept. First, so that nothing flashes.
(function () {
  "use strict";
  const rg = (window.rg = window.rg || {});
  const KEY = "rankguard-theme", ORDER = ["auto", "light", "dark"];

  function kept() {
    try {
      const theme = localStorage.getItem(KEY);
      return ORDER.includes(theme) ? theme : "auto";
    } catch (_) { // where nothing may be kept, the switch still switches
      return rg.themeNow || "auto";
    }
  }

  function put(theme) {
    rg.themeNow = theme;
    if (theme === "auto") document.documentElement.removeAttribute("data-theme");
    else document.documentElement.setAttribute("data-theme", theme);
  }

  rg.theme = kept;
  rg.nextTheme = function () {
    const next = ORDER[(ORDER.indexOf(kept()) + 1) % ORDER.length];
    try {
      localStorage.setItem(KEY, next);
    } catch (_) {}
    put(next);
    return next;
  };
  put(kept());
})();
