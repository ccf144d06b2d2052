// Beside each other, a cell of the compared prompt can be dragged onto one of the shown prompt: its state is swapped in,
// at the same depth. What follows is the server's business; see callbacks/params.py.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const FAR = 6; // pixels; a shorter way is a click
  let held = null; // what is dragged: its token and depth, where the button went down, and the label that follows

  const giver = () => document.querySelector("#other-holder .js-plotly-plot");
  const taker = () => Array.from(document.querySelectorAll("#main-figure .js-plotly-plot")).find((gd) => !gd.closest("#other-holder"));

  // The token and the depth under the pointer; null outside of the cells.
  function cell(gd, event) {
    const chosen = gd && dash.spine.under(gd, event);
    return chosen && "pos" in chosen && "depth" in chosen ? chosen : null;
  }

  function drop() {
    if (held && held.label) held.label.remove();
    document.body.classList.remove("swapping");
    const gd = taker();
    if (held && gd) window.workbenchFrame(gd, {});
    held = null;
  }

  document.addEventListener("mousedown", (event) => {
    const gd = giver();
    if (event.button || !gd || !gd.contains(event.target) || event.target.closest(".modebar")) return;
    if (!((gd.layout || {}).meta || {}).gives || gd._fullLayout.dragmode !== false) return;
    const from = cell(gd, event);
    if (from) held = { from: from, x: event.clientX, y: event.clientY, label: null };
  }, true);

  window.addEventListener("mousemove", (event) => {
    if (!held) return;
    if (!held.label) {
      if (Math.hypot(event.clientX - held.x, event.clientY - held.y) < FAR) return;
      held.label = document.body.appendChild(document.createElement("div"));
      held.label.className = "held";
      document.body.classList.add("swapping");
    }
    const gd = taker(), to = cell(gd, event);
    held.label.textContent = "state of token " + held.from.pos + ", depth " + held.from.depth + (to ? " \u2192 token " + to.pos : "");
    held.label.style.left = event.clientX + 14 + "px";
    held.label.style.top = event.clientY + 14 + "px";
    if (gd) window.workbenchFrame(gd, to ? { pos: to.pos, depth: held.from.depth } : {});
  }, true);

  window.addEventListener("mouseup", (event) => {
    const to = held && held.label && cell(taker(), event), from = held && held.from;
    if ((held && held.label) || dash.swaps.left) dash.swaps.ended = performance.now();
    dash.swaps.left = false;
    drop();
    if (!to) return;
    dash.spine.select({ pos: to.pos, depth: from.depth });
    dash.set_props("swapped", { data: { depth: from.depth, pos: to.pos, origin: from.pos, clicks: performance.now() } });
  }, true);

  dash.swaps = {
    left: false, // whether what was dragged was left with Escape, before the button is up
    ended: -Infinity,
    // Whether a drag has just ended: Plotly takes the end of it for a click on the cell where it began.
    justEnded: () => performance.now() - dash.swaps.ended < 500,
  };

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !held) return;
    event.stopPropagation();
    dash.swaps.left = true;
    drop();
  }, true);
})();
