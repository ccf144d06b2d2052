// Hovering a cell or a token shows lightly in every other view what a click there would select. Nothing is asked of the
// server and no figure is drawn anew: a frame is laid over each of them.
(function () {
  "use strict";
  const spine = () => window.dash_clientside.spine;
  let waiting = null;

  function frames() {
    return Array.from(document.querySelectorAll(".preview"));
  }

  function clear() {
    cancelAnimationFrame(waiting);
    frames().forEach((frame) => { frame.hidden = true; });
    document.querySelectorAll(".tokens .previewed").forEach((chip) => chip.classList.remove("previewed"));
  }

  // Pixels of a rectangle given in the coordinates of a figure, inside the figure's own box.
  function box(gd, shape) {
    const full = gd._fullLayout;
    const x = (v) => full.xaxis._offset + (shape.xref === "x" ? full.xaxis.d2p(v) : v * full.xaxis._length);
    const y = (v) => full.yaxis._offset + (shape.yref === "y" ? full.yaxis.d2p(v) : (1 - v) * full.yaxis._length);
    const [left, right] = [x(shape.x0), x(shape.x1)].sort((a, b) => a - b);
    const [top, bottom] = [y(shape.y0), y(shape.y1)].sort((a, b) => a - b);
    return { left, top, width: right - left, height: bottom - top };
  }

  function lay(gd, chosen) {
    const holder = gd.parentElement;
    let frame = holder.querySelector(":scope > .preview");
    const full = gd._fullLayout;
    const [shape] = full && full.xaxis && full.yaxis ? spine().shapes(gd.layout.meta || {}, window.dash_clientside.pins.of(gd, chosen)) : [];
    if (!shape) return frame && (frame.hidden = true);
    if (!frame) {
      frame = document.createElement("div");
      frame.className = "preview";
      if (getComputedStyle(holder).position === "static") holder.style.position = "relative"; // the frame is laid in it
      holder.appendChild(frame);
    }
    for (const [name, value] of Object.entries(box(gd, shape))) frame.style[name] = value + "px";
    frame.hidden = false;
  }

  function show(chosen, source) {
    cancelAnimationFrame(waiting);
    waiting = requestAnimationFrame(() => {
      const all = spine().merge({}, chosen);
      document.querySelectorAll(".js-plotly-plot").forEach((gd) => { if (gd !== source && gd.layout) lay(gd, all); });
      document.querySelectorAll(".tokens [data-pos]").forEach((chip) => {
        chip.classList.toggle("previewed", [all.pos, all.key].includes(Number(chip.dataset.pos)));
      });
    });
  }

  // What is said of a cell goes with its figure: a finger leaves no cell, and the next figure stands under the same label.
  const drawn = new WeakMap();
  window.workbenchLeave = function (gd) {
    if (drawn.has(gd) && drawn.get(gd) !== gd.data) {
      window.Plotly.Fx.unhover(gd);
      clear();
    }
    drawn.set(gd, gd.data);
  };

  window.workbenchFrame = lay;
  window.workbenchHover = function (gd) {
    gd.on("plotly_hover", (event) => {
      const point = (event.points || [])[0];
      const chosen = point ? spine().read(gd.layout.meta || {}, point) : {};
      if (Object.keys(chosen).length) show(chosen, gd);
    });
    gd.on("plotly_unhover", clear);
  };

  const chipOf = (event) => event.target.closest && event.target.closest(".tokens [data-pos]");
  document.addEventListener("mouseover", (event) => {
    const chip = chipOf(event);
    if (chip) show({ pos: Number(chip.dataset.pos) }, null);
  });
  document.addEventListener("mouseout", (event) => { if (chipOf(event)) clear(); });
  document.addEventListener("click", clear);
})();
