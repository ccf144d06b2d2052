// Figures are drawn by the server for no particular width: here labels that would overlap are thinned, and text that does
// not fit its cells is left out (the hover still says it).
(function () {
  "use strict";
  const originals = new WeakMap();
  const apart = 11; // pixels between the labels of two ticks

  function first(gd) {
    const meta = gd.layout.meta;
    if (!meta || typeof meta !== "object") return null;
    if (!originals.has(meta)) {
      const ticks = {};
      for (const name of ["xaxis", "yaxis"]) {
        const axis = gd.layout[name] || {};
        if (Array.isArray(axis.ticktext)) ticks[name] = { vals: Array.from(axis.tickvals), text: Array.from(axis.ticktext) };
      }
      originals.set(meta, { ticks: ticks, texts: gd.data.map((trace) => trace.texttemplate || "") });
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

  function fits(gd, trace) {
    const axis = gd._fullLayout.xaxis;
    const size = ((trace.textfont || {}).size || 9) * 0.62;
    const texts = (trace.text || []).flat();
    const longest = Math.max(0, ...texts.map((text) => String(text).replace(/&[^;]+;/g, "x").length));
    return Math.abs(axis.d2p(1) - axis.d2p(0)) >= longest * size * 0.86;
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
      if (trace.type !== "heatmap" || !before.texts[index]) return;
      const template = fits(gd, trace) ? before.texts[index] : "";
      if (template !== trace.texttemplate) window.Plotly.restyle(gd, { texttemplate: template }, [index]);
    });
    if (Object.keys(change).length) window.Plotly.relayout(gd, change);
  };
})();
