// Figures are drawn by the server for no particular width: here labels that would overlap are thinned, and text that does
// not fit its cells is cut or left out (the hover still says it).
(function () {
  "use strict";
  const originals = new WeakMap();
  const apart = 11; // pixels between the labels of two ticks

  const rows = (texts) => Array.from(texts || [], (row) => (Array.isArray(row) ? Array.from(row) : [row]));

  function first(gd) {
    const meta = gd.layout.meta;
    if (!meta || typeof meta !== "object") return null;
    if (!originals.has(meta)) {
      const ticks = {};
      for (const name of ["xaxis", "yaxis"]) {
        const axis = gd.layout[name] || {};
        if (Array.isArray(axis.ticktext)) ticks[name] = { vals: Array.from(axis.tickvals), text: Array.from(axis.ticktext) };
      }
      originals.set(meta, {
        ticks: ticks,
        templates: gd.data.map((trace) => trace.texttemplate || ""),
        texts: gd.data.map((trace) => (trace.type === "heatmap" ? rows(trace.text) : [])),
      });
    }
    return originals.get(meta);
  }

  function thinned(gd, name, ticks) {
    const axis = gd._fullLayout[name];
    if (!axis || ticks.vals.length < 2) return ticks;
    const pixels = Math.abs(axis.d2p(ticks.vals[1]) - axis.d2p(ticks.vals[0]));
    const flat = name === "xaxis" && Number(axis.tickangle) !== -90 && axis.tickangle !== 90;
    const longest = Math.max(...ticks.text.map((text) => String(text).replace(/&[^;]+;/g, "x").length));
    const every = Math.max(1, Math.ceil((flat ? Math.max(apart, longest * 6.2 + 4) : apart) / Math.max(pixels, 0.1)));
    const keep = (all) => all.filter((_, i) => i % every === 0);
    return { vals: keep(ticks.vals), text: keep(ticks.text) };
  }

  // Cell text cut to what a cell can hold, with an ellipsis; nothing where not even two letters fit, or no line of them.
  function cut(gd, trace, texts) {
    const step = (axis) => Math.abs(axis.d2p(1) - axis.d2p(0));
    const size = (trace.textfont || {}).size || 9;
    const room = Math.floor((step(gd._fullLayout.xaxis) - 2) / (size * 0.62));
    if (room < 3 || step(gd._fullLayout.yaxis) < size) return null;
    return texts.map((row) => row.map((text) => {
      const letters = String(text === null || text === undefined ? "" : text).match(/&[^;\s]+;|[^]/gu) || [];
      return letters.length <= room ? text : letters.slice(0, room - 1).join("") + "\u2026";
    }));
  }

  window.workbenchFit = function (gd) {
    if (!gd._fullLayout || !gd._fullLayout.xaxis || !gd.layout) return;
    const before = first(gd);
    if (!before) return;
    const change = {};
    for (const [name, ticks] of Object.entries(before.ticks)) {
      const next = thinned(gd, name, ticks);
      if (JSON.stringify(next.vals) !== JSON.stringify(Array.from(gd.layout[name].tickvals))) {
        change[name + ".tickvals"] = next.vals;
        change[name + ".ticktext"] = next.text;
      }
    }
    gd.data.forEach((trace, index) => {
      const texts = before.texts[index];
      if (trace.type !== "heatmap" || !before.templates[index] || !texts.length) return;
      const next = cut(gd, trace, texts);
      const template = next ? before.templates[index] : "";
      const shown = next || texts;
      if (template === trace.texttemplate && JSON.stringify(shown) === JSON.stringify(rows(trace.text))) return;
      window.Plotly.restyle(gd, { texttemplate: template, text: [shown] }, [index]);
    });
    if (Object.keys(change).length) window.workbenchRelayout(gd, change);
  };
})();
