// Titles of figures and of their axes are broken into lines by the server for a usual width: here they are broken anew
// for the width that there is; in a narrow figure only where a line is too wide for it. Of two figures beside each other
// the one with fewer lines leaves as much room above it: their rows stand side by side.
(function () {
  "use strict";
  const LINE = 17; // pixels of a line of a title, as in workbench/figures/caption.py
  const EDGES = 26, WIDE = 480, TOOLS = 190; // pixels beside a title; in a wide figure those of its tools, which come and go
  const originals = new WeakMap();
  let pen = null;

  const widthOf = (text, font) => {
    pen = pen || document.createElement("canvas").getContext("2d");
    pen.font = font.size + "px " + font.family;
    return pen.measureText(text.replace(/<[^>]*>/g, "").replace(/&[^;\s]+;/g, "x")).width;
  };

  window.workbenchWidth = widthOf;

  // A line in lines that fit; a word that is wider than the room stays whole, and so does what holds marks of its own, and
  // a quoted token that begins with a space, such as ' Mary' (as workbench/figures/text.py breaks them).
  function broken(line, room, font) {
    if (/<(?!\/?(b|i|sub|sup)>)/.test(line) || widthOf(line, font) <= room) return [line];
    const lines = [];
    for (const held of line.replace(/(?<![^\s(])' /g, "'\uffff").split(" ")) {
      const word = held.replace(/\uffff/g, " ");
      const longer = lines.length ? lines[lines.length - 1] + " " + word : word;
      if (lines.length && widthOf(longer, font) <= room) lines[lines.length - 1] = longer;
      else lines.push(word);
    }
    return lines;
  }

  function fitted(text, room, font, joins = true) {
    const lines = text.split(/<br\s*\/?>/);
    const stays = !joins && lines.every((line) => widthOf(line, font) <= room);
    const whole = stays || lines.some((line) => /<(?!\/?(b|i|sub|sup)>)/.test(line)) ? lines : [lines.join(" ")];
    return whole.flatMap((line) => broken(line, room, font));
  }
  const textOf = (part) => String(((part || {}).title || {}).text || "");

  function first(gd) {
    const meta = gd.layout.meta, full = gd._fullLayout;
    if (!meta || typeof meta !== "object") return null;
    if (!originals.has(meta)) {
      const axes = Object.keys(full).filter((name) => /^[xy]axis\d*$/.test(name) && textOf(gd.layout[name]));
      const title = gd.layout.title || {}, margin = gd.layout.margin || {};
      originals.set(meta, {
        // Not full.margin.t: what is drawn may still be the figure that stood here before, fitted to another width.
        known: {}, title: textOf(gd.layout), top: margin.t === undefined ? full.margin.t : margin.t, below: (title.pad || {}).b || 0,
        axes: Object.fromEntries(axes.map((name) => [name, textOf(gd.layout[name])])),
      });
    }
    return originals.get(meta);
  }

  const roomOf = (full) => full.width - (full.width > WIDE ? TOOLS : EDGES);
  const linesOf = (before, full) => fitted(before.title, roomOf(full), full.title.font, full.width > WIDE);

  // A large figure and the one beside it; any other stands alone.
  function abreast(gd) {
    const holder = gd.closest("#main-figure");
    return holder ? Array.from(holder.querySelectorAll(".js-plotly-plot")).filter((one) => one.offsetParent) : [gd];
  }

  // What titles take above their figures, that of this one or of one beside it.
  function above(gd) {
    return Math.max(...abreast(gd).map((one) => {
      const before = one._fullLayout && one.layout ? first(one) : null;
      if (!before || !before.title || one.layout.title.x !== undefined) return -Infinity;
      return before.top + LINE * (linesOf(before, one._fullLayout).length - before.title.split(/<br\s*\/?>/).length);
    }));
  }

  // What must change in a figure's layout for its titles to fit.
  window.workbenchTitles = function (gd) {
    const before = first(gd), full = gd._fullLayout, change = {};
    if (!before) return change;
    if (before.title && gd.layout.title.x === undefined) {
      const text = linesOf(before, full).join("<br>"), top = above(gd), more = top - before.top;
      const is = (gd.layout.margin || {}).t === undefined ? full.margin.t : gd.layout.margin.t;
      if (text !== textOf(gd.layout) || top !== is) {
        Object.assign(change, { "title.text": text, "title.pad.b": before.below + more, "margin.t": top });
        setTimeout(() => abreast(gd).filter((other) => other !== gd).forEach(window.workbenchFit)); // it moves along
      }
    }
    for (const [name, said] of Object.entries(before.axes)) {
      const text = full[name] && full[name]._length ? axisTitle(before, full, name, said) : textOf(gd.layout[name]);
      if (text !== textOf(gd.layout[name])) change[name + ".title.text"] = text;
    }
    return change;
  };

  // An axis's title stands at its middle. What it takes moves the other axis, so that at one size it only takes more.
  function axisTitle(before, full, name, said) {
    const axis = full[name], middle = axis._offset + axis._length / 2, whole = name[0] === "x" ? full.width : full.height;
    const start = name[0] === "y" && before.title ? full._size.t - 8 : 0; // above stands the figure's own title
    const lines = fitted(said, Math.max(60, 2 * Math.min(middle - start, whole - middle) - 8), axis.title.font, full.width > WIDE);
    const at = [full.width, full.height].join(), known = before.known[name];
    if (known && known.at === at && known.lines.length >= lines.length) return known.lines.join("<br>");
    before.known[name] = { at: at, lines: lines };
    return lines.join("<br>");
  }
  (window.dash_clientside = window.dash_clientside || {}).titles = { fitted };
})();
