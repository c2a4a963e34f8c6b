// Numbers, instants and ranks in words, as docs/style.md has them: a unit with a space, binary units for memory.
(function () {
  "use strict";
  const rg = window.rg;

  rg.bytes = function (bytes) {
    if (bytes === null || bytes === undefined) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let value = Math.abs(bytes), unit = 0;
    while (value >= 1023.5 && unit < units.length - 1) (value /= 1024), unit++;
    return (bytes < 0 ? "-" : "") + (unit === 0 || value >= 99.95 ? Math.round(value) : value.toFixed(1)) + " " + units[unit];
  };

  const plain = (value, digits) => value.toFixed(digits).replace(/\.0+$/, "");

  // A duration. Below a second the milliseconds matter, below one the microseconds.
  rg.span = function (seconds) {
    if (seconds === null || seconds === undefined) return "–";
    const sign = seconds < 0 ? "-" : "", s = Math.abs(seconds);
    if (s < 0.0000005) return "0 s";
    if (s < 0.0009995) return sign + Math.round(s * 1e6) + " µs";
    if (s < 0.9995) return sign + plain(s * 1e3, s < 0.09995 ? 1 : 0) + " ms";
    if (s < 9.995) return sign + s.toFixed(2) + " s";
    if (s < 599.95) return sign + s.toFixed(1) + " s";
    return sign + rg.coarse(s);
  };

  // The same in whole units, for clocks.
  rg.coarse = function (seconds) {
    const s = Math.max(0, Math.floor(seconds));
    if (s < 60) return s + " s";
    if (s < 3600) return Math.floor(s / 60) + " min " + (s % 60) + " s";
    if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
    return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
  };

  const two = (number, width = 2) => String(number).padStart(width, "0");

  // An instant in the reader's zone, with its offset; `digits` of the second.
  rg.instant = function (at, digits = 3) {
    const offset = -at.getTimezoneOffset();
    const zone = (offset < 0 ? "-" : "+") + two(Math.floor(Math.abs(offset) / 60)) + ":" + two(Math.abs(offset) % 60);
    const day = at.getFullYear() + "-" + two(at.getMonth() + 1) + "-" + two(at.getDate());
    const fine = digits ? "." + two(at.getMilliseconds(), 3) : "";
    return day + " " + two(at.getHours()) + ":" + two(at.getMinutes()) + ":" + two(at.getSeconds()) + fine + " " + zone;
  };

  rg.hour = (at) => two(at.getHours()) + ":" + two(at.getMinutes()) + ":" + two(at.getSeconds());

  rg.parse = function (iso) {
    const at = iso ? new Date(iso.replace(/(\.\d{3})\d+/, "$1")) : null;
    return at && !isNaN(at) ? at : null;
  };

  // <time> for an ISO instant: the reader's zone to read, UTC to the microsecond in the tooltip.
  rg.time = function (iso, digits) {
    const at = rg.parse(iso);
    if (!at) return null;
    return rg.h("time", { datetime: iso, title: iso.replace("T", " ").replace("Z", " UTC") }, rg.instant(at, digits));
  };

  // The instant of so many seconds since the attempt's start.
  rg.at = function (seconds) {
    const start = rg.parse(rg.data.view.run.started_at);
    return start && seconds !== null ? new Date(start.getTime() + seconds * 1000) : null;
  };

  // [0,1,2,5] → `ranks 0-2, 5`; names as they are.
  rg.list = function (ids, most = 12) {
    const numbers = [], names = [];
    for (const id of ids) {
      const rank = rg.find(id), named = rank ? rg.named(rank) : !/^\d+$/.test(String(id));
      named ? names.push(rank ? rg.call(rank) : id) : numbers.push(id);
    }
    const words = [];
    numbers.map(Number).sort((a, b) => a - b).forEach((number) => {
      const last = words[words.length - 1];
      if (last && last[1] === number - 1) last[1] = number;
      else words.push([number, number]);
    });
    let parts = words.map(([a, b]) => (a === b ? String(a) : b === a + 1 ? a + ", " + b : a + "-" + b));
    if (parts.length > most) parts = [...parts.slice(0, most - 1), "… (" + numbers.length + " in all)"];
    const said = parts.length ? (numbers.length === 1 ? "rank " : "ranks ") + parts.join(", ") : "";
    return [said, ...names.slice(0, most), names.length > most ? "… (" + names.length + " in all)" : ""].filter(Boolean).join(", ");
  };

  rg.ending = function (ending) {
    if (!ending) return "";
    if (ending.kind === "exit") return "exit " + ending.code;
    if (ending.kind === "signal") return ending.signal || "signal " + ending.number;
    return ending.kind === "alive" ? "still alive" : ending.kind;
  };

  rg.progress = function (rank) {
    if (rank.done === null || rank.done === undefined) return "";
    const of = rank.total !== null && rank.total !== undefined ? " of " + rank.total : "";
    return rank.done + of + (rank.unit ? " " + rank.unit : "");
  };

  rg.share = (rank) => (rank.total > 0 && rank.done !== null ? Math.max(0, Math.min(1, rank.done / rank.total)) : null);

  rg.count = (number, one, many) => number.toLocaleString("en") + " " + (number === 1 ? one : many || one + "s");

  // Marks for an axis: about `most` round values between two, fewer where the screen is narrow.
  rg.ticks = function (from, to, most) {
    const rough = (to - from) / Math.max(1, Math.min(most, Math.floor(window.innerWidth / 120)));
    if (!(rough > 0)) return [from];
    const power = Math.pow(10, Math.floor(Math.log10(rough)));
    const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough * 0.999);
    const found = [];
    for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++) found.push(i * step);
    return found;
  };
})();
