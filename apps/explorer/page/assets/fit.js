// Figures are drawn by the server for no particular width: here labels that would overlap are thinned, and words are
// fitted to their cells. Where there is no room for words in all columns, a window of columns is shown that has some: it
// holds the selected token, and the line above the figure says which tokens these are.
(function () {
  "use strict";
  const originals = new WeakMap();
  const apart = 11; // pixels between the labels of two ticks
  const letter = 0.62; // width of a letter, in its height
  const fewest = 5; // letters of a word that still says something
  const sizes = { least: 7, most: 11 }; // of a font that can be read

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
        texts: gd.data.map((trace) => (trace.type !== "heatmap" ? [] : meta.cells || rows(trace.text))),
        range: meta.cells ? Array.from(gd._fullLayout.xaxis.range) : null,
        fewest: {},
      });
    }
    return originals.get(meta);
  }

  // What is shown takes room itself: labels widen a margin, and the line that says which tokens are shown lowers the
  // figure; with less room fewer fit, and then there is more room again. So after a few turns, with nothing that somebody
  // did or a new size of the window in between, there only become fewer: else a figure is drawn again and again for ever.
  const turns = 3;
  let done = 0;
  ["resize", "pointerdown", "keydown"].forEach((kind) => window.addEventListener(kind, () => { done += 1; }, true));
  function fewer(gd, name, part, n) {
    const all = first(gd).fewest, place = [done, part].join(" "), known = all[name];
    if (!known || known.place !== place) all[name] = { place: place, n: n, grown: 0 };
    else if (n < known.n) known.n = n;
    else if (n > known.n && known.grown < turns) Object.assign(known, { n: n, grown: known.grown + 1 });
    return all[name].n;
  }

  function thinned(gd, name, ticks) {
    const axis = gd._fullLayout[name];
    if (!axis || ticks.vals.length < 2) return ticks;
    const pixels = Math.abs(axis.d2p(ticks.vals[1]) - axis.d2p(ticks.vals[0]));
    const flat = name === "xaxis" && Number(axis.tickangle) !== -90 && axis.tickangle !== 90;
    const longest = Math.max(...ticks.text.map((text) => String(text).replace(/&[^;]+;/g, "x").length));
    const needed = Math.max(1, Math.ceil((flat ? Math.max(apart, longest * 6.2 + 4) : apart) / Math.max(pixels, 0.1)));
    const every = -fewer(gd, name, axis.range, -needed);
    const keep = (all) => all.filter((_, i) => i % every === 0);
    return { vals: keep(ticks.vals), text: keep(ticks.text) };
  }

  // Words cut to what a cell can hold, with an ellipsis; null where not even two letters fit, or no line of them.
  function cut(gd, size, texts) {
    const step = (axis) => Math.abs(axis.d2p(1) - axis.d2p(0));
    const wide = step(gd._fullLayout.xaxis) - 3, font = { size: size, family: gd._fullLayout.font.family };
    if (wide < 3 * size * letter || step(gd._fullLayout.yaxis) < size) return null;
    const known = new Map(); // words come again and again
    const fitted = (text) => {
      if (!known.has(text)) known.set(text, shortened(text, wide, font));
      return known.get(text);
    };
    return texts.map((row) => row.map((text) => (text === null || text === undefined ? text : fitted(String(text)))));
  }

  function shortened(text, wide, font) {
    const width = window.workbenchWidth;
    if (width(text, font) <= wide) return text;
    const letters = text.match(/&[^;\s]+;|[^]/gu) || [];
    let kept = Math.min(letters.length - 1, Math.floor(wide / (0.4 * font.size)));
    while (kept > 1 && width(letters.slice(0, kept).join("") + "\u2026", font) > wide) kept -= 1;
    return letters.slice(0, Math.max(kept, 1)).join("") + "\u2026";
  }

  // The size of the words in a grid: as high as its rows allow; 0 where no line of them fits.
  function lettersOf(gd, trace) {
    if (!metaOf(gd).cells) return (trace.textfont || {}).size || 9;
    const high = Math.floor(Math.abs(gd._fullLayout.yaxis.d2p(1) - gd._fullLayout.yaxis.d2p(0)));
    return high < sizes.least ? 0 : Math.min(high, sizes.most);
  }

  const metaOf = (gd) => gd.layout.meta || {};
  const large = () => Array.from(document.querySelectorAll("#main-figure .js-plotly-plot")).filter((gd) => gd._fullLayout && gd.getClientRects().length);

  const isRow = (values) => values.every((pos, at) => pos === values[0] + at); // neighbours, without a gap

  // The columns that are shown, as the first and the last position; null for all of the figure's own. Two prompts beside
  // each other show the same positions. Where there is room for words in some columns only, a window of them is shown:
  // side by side from the first on, and the one that holds the selected token.
  function windowOf(gd, size) {
    const own = metaOf(gd).x_values;
    const all = large().map(metaOf).filter((other) => other.cells && other.x_values && isRow(other.x_values)).map((other) => other.x_values);
    if (!isRow(own) || !all.includes(own)) return null; // positions that were chosen by hand
    const low = Math.min(...all.map((values) => values[0])), high = Math.max(...all.map((values) => values[values.length - 1]));
    // As many as the narrower of two has room for.
    const wide = Math.min(...large().filter((other) => metaOf(other).cells).map((other) => other._fullLayout.xaxis._length));
    const room = size ? Math.max(1, Math.floor(wide / (fewest * letter * size + 2))) : Infinity;
    const fits = fewer(large()[0], "columns", "", room);
    const n = high - low + 1;
    if (n <= fits) return n === own.length ? null : [low, high];
    const wanted = window.dash_clientside.spine.state.selection.pos;
    const at = wanted >= low && wanted <= high ? wanted - low : n - 1;
    const first = Math.max(0, Math.min(Math.floor(at / fits) * fits, n - fits));
    return [low + first, low + first + fits - 1];
  }

  // Which tokens the large figure shows, where that is not all of them, and what moves on.
  function say(gd, span) {
    const line = document.getElementById("part-shown");
    const chips = document.querySelectorAll("#tokens [data-pos]").length;
    if (!line || gd !== large()[0]) return;
    const meta = metaOf(gd), values = (meta.axes || {}).x === "pos" ? meta.x_values : [];
    const ends = [values[0], values[values.length - 1]];
    const [first, last] = span ? [Math.max(span[0], ends[0]), Math.min(span[1], ends[1])] : ends;
    const whole = !values.length || (first === 0 && last >= chips - 1); // more than there are: of a sequence of its own
    const wordless = meta.cells && !lettersOf(gd, gd.data.find((one) => one.type === "heatmap"));
    const part = whole ? "" : "tokens " + first + " to " + last + " of " + chips;
    const said = [part, wordless ? "too low for words" : ""].filter(Boolean).join("; ");
    if (line.dataset.said === said) return;
    line.dataset.said = said;
    const step = (sign, word, to) => {
      const button = document.createElement("button");
      Object.assign(button, { className: "plain", textContent: sign, title: word, disabled: to < 0 || to >= chips });
      button.setAttribute("aria-label", word);
      button.addEventListener("click", () => window.dash_clientside.spine.select({ pos: to }));
      return button;
    };
    line.title = wordless ? "the rows are too low for words: maximise the view" : "";
    if (!part) return line.replaceChildren(said);
    line.replaceChildren(...(said ? [step("\u2039", "tokens before these", first - 1), said, step("\u203a", "tokens after these", last + 1)] : []));
  }

  window.workbenchFit = function (gd) {
    if (!gd._fullLayout || !gd._fullLayout.xaxis || !gd.layout) return;
    const before = first(gd);
    if (!before) return;
    const change = window.workbenchTitles(gd);
    let span = null;
    if (before.range) {
      const trace = gd.data.find((one) => one.type === "heatmap");
      span = windowOf(gd, lettersOf(gd, trace));
      const origin = metaOf(gd).x_values[0]; // drawn at 0
      const range = span ? [span[0] - origin - 0.5, span[1] - origin + 0.5] : before.range;
      // What somebody has zoomed into stays, until it does not hold the selection any more.
      if (String(range) !== String(before.set || before.range)) {
        before.set = range;
        change["xaxis.range"] = range;
        // What stands beside it moves along; its own drawing asks for nothing more, since it is moved by then.
        if (span) setTimeout(() => large().filter((other) => other !== gd && metaOf(other).cells).forEach(window.workbenchFit));
      }
    }
    say(gd, span);
    if ("xaxis.range" in change) return window.workbenchRelayout(gd, change); // and what follows, when that is drawn
    for (const [name, ticks] of Object.entries(before.ticks)) {
      const next = thinned(gd, name, ticks);
      if (JSON.stringify(next.vals) !== JSON.stringify(Array.from(gd.layout[name].tickvals))) {
        change[name + ".tickvals"] = next.vals;
        change[name + ".ticktext"] = next.text;
      }
    }
    gd.data.forEach((trace, index) => {
      const texts = before.texts[index];
      if (trace.type !== "heatmap" || !(before.range || before.templates[index]) || !texts.length) return;
      const size = lettersOf(gd, trace);
      const next = size ? cut(gd, size, texts) : null;
      const template = next ? "%{text}" : "";
      const shown = next || texts;
      if (template === (trace.texttemplate || "") && JSON.stringify(shown) === JSON.stringify(rows(trace.text))) return;
      window.Plotly.restyle(gd, { texttemplate: template, text: [shown], "textfont.size": size || 9 }, [index]);
    });
    if (Object.keys(change).length) window.workbenchRelayout(gd, change);
  };
})();
