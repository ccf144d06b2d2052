// Titles of figures and of their axes are broken into lines by the server for a usual width: here they are broken anew
// for the width that there is.
(function () {
  "use strict";
  const LINE = 17; // pixels of a line of a title, as in workbench/figures/caption.py
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

  function fitted(text, room, font) {
    const lines = text.split(/<br\s*\/?>/);
    const whole = lines.some((line) => /<(?!\/?(b|i|sub|sup)>)/.test(line)) ? lines : [lines.join(" ")];
    return whole.flatMap((line) => broken(line, room, font));
  }
  const textOf = (part) => String(((part || {}).title || {}).text || "");

  function first(gd) {
    const meta = gd.layout.meta, full = gd._fullLayout;
    if (!meta || typeof meta !== "object") return null;
    if (!originals.has(meta)) {
      const axes = Object.keys(full).filter((name) => /^[xy]axis\d*$/.test(name) && textOf(gd.layout[name]));
      const title = gd.layout.title || {};
      originals.set(meta, {
        known: {}, title: textOf(gd.layout), top: full.margin.t, below: (title.pad || {}).b || 0,
        axes: Object.fromEntries(axes.map((name) => [name, textOf(gd.layout[name])])),
      });
    }
    return originals.get(meta);
  }

  // What must change in a figure's layout for its titles to fit.
  window.workbenchTitles = function (gd) {
    const before = first(gd), full = gd._fullLayout, change = {};
    if (!before) return change;
    if (before.title && gd.layout.title.x === undefined) {
      const lines = fitted(before.title, full.width - 14, full.title.font);
      const more = LINE * (lines.length - before.title.split(/<br\s*\/?>/).length), text = lines.join("<br>");
      if (text !== textOf(gd.layout)) Object.assign(change, { "title.text": text, "title.pad.b": before.below + more, "margin.t": before.top + more });
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
    const lines = fitted(said, Math.max(60, 2 * Math.min(middle - start, whole - middle) - 8), axis.title.font);
    const at = [full.width, full.height].join(), known = before.known[name];
    if (known && known.at === at && known.lines.length >= lines.length) return known.lines.join("<br>");
    before.known[name] = { at: at, lines: lines };
    return lines.join("<br>");
  }
  (window.dash_clientside = window.dash_clientside || {}).titles = { fitted };
})();
