// Brings what stands on the page to what a part has just drawn, changing only what differs: a selection, the focus, scrolled
// boxes and opened details stay. Drawn elements with `data-key` are known by it; what has `data-keep` is left to its owner.
(function () {
  "use strict";
  const rg = window.rg;
  const OWN = { DETAILS: ["open"], INPUT: ["value", "checked"] }; // the reader's, once they are there

  function attributes(old, fresh) {
    const own = OWN[old.nodeName] || [];
    for (const { name, value } of fresh.attributes)
      if (name !== "style" && !own.includes(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
    for (const { name } of [...old.attributes])
      if (name !== "style" && !own.includes(name) && !fresh.hasAttribute(name)) old.removeAttribute(name);
    if (old.style.cssText !== fresh.style.cssText) old.style.cssText = fresh.style.cssText;
  }

  const key = (node) => (node.nodeType === 1 ? node.getAttribute("data-key") : null);

  function children(old, fresh) {
    const known = new Map(), kept = new Set();
    for (const node of fresh.childNodes) if (key(node) !== null) kept.add(key(node));
    for (const node of old.childNodes) if (key(node) !== null) known.set(key(node), node);
    let here = old.firstChild;
    for (const wanted of [...fresh.childNodes]) {
      const name = key(wanted);
      let match = name === null ? null : known.get(name) || null;
      if (match && match.nodeName !== wanted.nodeName) match = null;
      while (here && key(here) !== null && !kept.has(key(here))) here = drop(old, here);
      if (name === null && here && key(here) === null && here.nodeName === wanted.nodeName) match = here;
      if (!match) {
        old.insertBefore(wanted, here);
        continue;
      }
      if (match !== here) old.insertBefore(match, here);
      else here = here.nextSibling;
      one(match, wanted);
    }
    while (here) here = drop(old, here);
  }

  function drop(parent, node) {
    const next = node.nextSibling;
    parent.removeChild(node);
    return next;
  }

  function one(old, fresh) {
    if (old.nodeType !== 1) {
      if (old.nodeValue !== fresh.nodeValue) old.nodeValue = fresh.nodeValue;
      return;
    }
    attributes(old, fresh);
    if (!old.hasAttribute("data-keep")) children(old, fresh);
  }

  // `nodes`: what is to stand in `parent`; a node, or several in lists.
  rg.patch = function (parent, nodes) {
    const fresh = document.createElement("div");
    for (const node of [nodes].flat(Infinity)) if (node !== null && node !== undefined && node !== false) fresh.append(node);
    children(parent, fresh);
  };
})();
