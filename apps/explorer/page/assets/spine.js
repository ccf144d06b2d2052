// The selection lives in the browser: clicks, arrow keys and links write it, every figure and the token strip show it.
// Nothing here asks the server.
(function () {
  "use strict";
  // Plotly ends a drawing in a promise, and a figure that left the page meanwhile has lost its `emit`: the drawing of
  // something that is gone fails, and nothing else does. Every other failure is reported as usual.
  window.addEventListener("unhandledrejection", (event) => {
    if (/\bemit is not a function/.test(String(event.reason))) event.preventDefault();
  });

  const dash = (window.dash_clientside = window.dash_clientside || {});
  const known = JSON.parse(document.documentElement.dataset.workbench); // see page/constants.py
  const state = { selection: {} };

  const plots = () => Array.from(document.querySelectorAll(".js-plotly-plot"));
  const metaOf = (gd) => (gd && gd.layout && gd.layout.meta) || {};

  // The same rules as selection.merge in Python.
  function merge(selection, chosen) {
    chosen = Object.assign({}, chosen);
    if ("pos" in chosen && !("query" in chosen)) chosen.query = chosen.pos;
    else if ("query" in chosen) chosen.pos = chosen.query;
    if ("layer" in chosen && !("depth" in chosen)) chosen.depth = chosen.layer + 1;
    const merged = Object.assign({}, selection, chosen);
    if (!("part" in chosen)) delete merged.part;
    if (merged.layer !== selection.layer && !("neuron" in chosen)) delete merged.neuron;
    if (!("component" in chosen) && (merged.layer !== selection.layer || merged.head !== selection.head)) delete merged.component;
    if ("query" in merged && (merged.key || 0) > merged.query) delete merged.key;
    return merged;
  }

  function select(chosen) {
    if (!Object.keys(chosen).length) return;
    state.selection = merge(state.selection, chosen); // at once: the next key may come before the store's answer
    dash.set_props("selection", { data: state.selection });
  }

  // The same as workbench.figures.axes.unpack.
  function unpack(packed, given) {
    const chosen = Object.assign({}, packed.also);
    let rest = given;
    for (const [name, size] of packed.sizes.slice().reverse()) {
      if (rest % size) chosen[name] = (rest % size) - 1;
      rest = Math.floor(rest / size);
    }
    return chosen;
  }

  // The same as workbench.figures.selection: what a clicked point stands for.
  function read(meta, point) {
    const given = point.customdata;
    const packed = (meta.packed || {})[point.curveNumber];
    if (packed && Number.isInteger(given)) return unpack(packed, given);
    if (given && typeof given === "object" && !Array.isArray(given)) return Object.assign({}, given);
    const chosen = {};
    for (const [name, dim] of Object.entries(meta.axes || {})) {
      const values = meta[name + "_values"] || [];
      const at = point[name];
      if (at === undefined || at === null || !values.length) continue;
      const drawn = meta[name + "_at"] || values.map((_, i) => i);
      let best = 0;
      drawn.forEach((d, i) => { if (Math.abs(d - at) < Math.abs(drawn[best] - at)) best = i; });
      chosen[dim] = values[best];
    }
    return chosen;
  }

  // The same as workbench.figures.selection_shapes: an outline of the selected cell, row or column.
  function shapes(meta, selection) {
    const edges = { x0: 0, x1: 1, y0: 0, y1: 1, xref: "x domain", yref: "y domain" };
    let found = false;
    for (const [name, dim] of Object.entries(meta.axes || {})) {
      if (!(dim in selection)) continue;
      const values = meta[name + "_values"] || [];
      const index = values.indexOf(selection[dim]);
      if (index < 0) return [];
      const drawn = meta[name + "_at"] || values.map((_, i) => i);
      const steps = drawn.slice(1).map((v, i) => v - drawn[i]);
      const even = steps.every((step) => Math.abs(step - steps[0]) <= 1e-8 + 1e-5 * Math.abs(steps[0]));
      const cell = steps.length ? (even ? Math.abs(steps[0]) : 0) : 1; // at unequal distances there are no cells
      const half = (meta[name + "_cell"] || cell) / 2;
      Object.assign(edges, { [name + "0"]: drawn[index] - half, [name + "1"]: drawn[index] + half, [name + "ref"]: name });
      found = true;
    }
    const line = { color: known.selected, width: 2 };
    return found ? [Object.assign({ type: "rect", name: "selected", line, fillcolor: "rgba(0,0,0,0)" }, edges)] : [];
  }

  // What lies under the pointer in a figure without depth, as a click there would say it; null outside of its cells.
  function under(gd, event) {
    const full = gd._fullLayout;
    if (!full || !full.xaxis || !full.yaxis) return null;
    const box = gd.getBoundingClientRect();
    const x = event.clientX - box.left - full.xaxis._offset, y = event.clientY - box.top - full.yaxis._offset;
    if (x < 0 || y < 0 || x > full.xaxis._length || y > full.yaxis._length) return null;
    const chosen = read(metaOf(gd), { x: full.xaxis.p2d(x), y: full.yaxis.p2d(y) });
    return Object.keys(chosen).length ? chosen : null;
  }

  function mark(gd) {
    if (!window.Plotly || !gd.layout) return;
    const now = gd.layout.shapes || [];
    const next = shapes(metaOf(gd), dash.pins.of(gd, state.selection));
    const place = (all) => all.map((s) => [s.x0, s.x1, s.y0, s.y1, s.xref, s.yref].join(" ")).join();
    if (place(now.filter((s) => s.name === "selected")) === place(next)) return;
    window.workbenchRelayout(gd, { shapes: now.filter((s) => s.name !== "selected").concat(next) });
  }

  // Dash writes every change of a layout back into its store and draws the whole figure again. Ours are for the eye.
  window.workbenchRelayout = function (gd, change) {
    gd.removeAllListeners("plotly_relayout");
    window.Plotly.relayout(gd, change);
  };

  let seen = null; // the chip that the strip has scrolled to
  function markTokens() {
    document.querySelectorAll(".tokens [data-pos]").forEach((chip) => {
      const pos = Number(chip.dataset.pos);
      const chosen = pos === state.selection.pos;
      chip.classList.toggle("selected", chosen);
      chip.classList.toggle("attended", pos === state.selection.key);
      chip.setAttribute("aria-pressed", chosen ? "true" : "false");
      if (chosen && seen !== chip) chip.scrollIntoView({ block: "nearest", inline: "nearest" });
      if (chosen && chip.closest("#tokens")) seen = chip;
    });
  }

  // Rows of tokens and notices come and go, and take their room from the figures.
  const sizes = new ResizeObserver((entries) => {
    entries.forEach((entry) => {
      const gd = entry.target.querySelector(".js-plotly-plot");
      if (gd && gd.isConnected && gd.emit && gd._fullLayout && entry.contentRect.width > 0 && entry.contentRect.height > 0) window.Plotly.Plots.resize(gd);
    });
  });

  function attach() {
    plots().forEach((gd) => {
      if (!gd.on || gd.dataset.spine) return;
      gd.dataset.spine = "1";
      sizes.observe(gd.parentElement);
      gd.on("plotly_afterplot", () => { window.workbenchLeave(gd); mark(gd); window.workbenchFit(gd); });
      window.workbenchHover(gd);
      mark(gd);
      window.workbenchFit(gd);
    });
  }

  // Arrow keys step along the axes of the large view; outside it, along the tokens.
  function step(dx, dy) {
    const gd = document.querySelector("#main-figure .js-plotly-plot") || plots()[0];
    const meta = metaOf(gd);
    const chosen = {};
    const moves = { x: dx, y: meta.axes && ["query"].includes(meta.axes.y) ? -dy : dy };
    for (const [name, delta] of Object.entries(moves)) {
      const dim = (meta.axes || {})[name];
      const values = meta[name + "_values"] || [];
      if (!delta || !dim || !values.length) continue;
      const at = values.indexOf(state.selection[dim]);
      const next = at < 0 ? (delta > 0 ? 0 : values.length - 1) : Math.min(values.length - 1, Math.max(0, at + delta));
      chosen[dim] = values[next];
    }
    if (!Object.keys(chosen).length && dx) {
      const last = document.querySelectorAll("#tokens [data-pos]").length - 1;
      if (last >= 0) chosen.pos = Math.min(last, Math.max(0, (state.selection.pos ?? last) + dx));
    }
    select(chosen);
  }

  const typing = (target) => target.closest("input, textarea, select, [contenteditable], [role=listbox], [role=tab], [role=menu], [role=radiogroup], [role=slider], .table");

  // What Escape closes by itself, before it has closed it.
  const popups = "[role=dialog], [role=menu], [role=listbox], .mantine-Popover-dropdown";
  let popup = false;
  document.addEventListener("keydown", () => {
    popup = Array.from(document.querySelectorAll(popups)).some((one) => one.getClientRects().length);
  }, true);

  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
      event.preventDefault();
      const run = document.getElementById("run");
      if (run) run.click();
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && !popup) {
      if (dash.tour.close()) return;
      if (document.body.classList.contains("maximised")) return maximise(null);
      dash.set_props("selection", { data: {} });
      return;
    }
    if (!event.target.closest || typing(event.target)) return;
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (moves[event.key]) {
      event.preventDefault();
      step(...moves[event.key]);
    } else if (event.key === "?") {
      dash.set_props("keys-help", { opened: true });
    } else if (event.key === "m") {
      maximise("main");
    }
  });

  document.addEventListener("click", (event) => {
    const chip = event.target.closest && event.target.closest(".tokens [data-pos]");
    if (chip) select({ pos: Number(chip.dataset.pos) });
    const wide = event.target.closest && event.target.closest("[data-maximise]");
    if (wide) maximise(wide.dataset.maximise);
    const pressed = event.target.closest && event.target.closest(known.pressed.map(([kind]) => "[data-" + kind + "]").join());
    if (pressed) press(pressed);
  });

  // Buttons that come and go, and are drawn anew while they are pressed: a click that was counted in one of them could be
  // lost with it, and Dash would call the server for each one that comes.
  function press(button) {
    presses += 1;
    if (button.dataset.turn) {
      dash.set_props("card", { opened: false });
      return dash.links.turnTo(button.dataset.turn);
    }
    if (button.dataset.export) {
      const taken = dash.links.picture(button.dataset.export, presses);
      return taken && dash.set_props("take", { data: taken });
    }
    const wrong = "start" in button.dataset && document.querySelector("#params-form [aria-invalid=true]");
    if (wrong) return wrong.focus();
    const [, store] = known.pressed.find(([kind]) => kind in button.dataset);
    dash.set_props(store, { data: Object.assign({ clicks: presses }, button.dataset) });
  }
  let presses = 0;

  // A view that reads a part of the prompt is asked for the part with the selected token: once the selection has left
  // what is drawn, or what is drawn has arrived without it, since it was asked for when another token was selected.
  let large = {}, stands = "", reached = "";
  function reach() {
    const pos = state.selection.pos, of = stands + " " + pos;
    const lacks = large.axes && large.axes.x === "pos" && pos !== undefined && !large.x_values.includes(pos);
    if (!lacks || of === reached) return;
    reached = of;
    dash.set_props("follow", { data: state.selection });
  }

  function maximise(name) {
    const same = document.body.dataset.maximised === name || name === null;
    document.body.classList.toggle("maximised", !same);
    document.body.dataset.maximised = same ? "" : name;
    document.querySelectorAll("[data-maximise]").forEach((button) => { button.textContent = same ? "Maximise" : "Back"; });
    setTimeout(() => window.dispatchEvent(new Event("resize")), 50);
  }

  // What is said is of the selection before: it stands back, and says so to a screen reader.
  function old(is) {
    const right = document.querySelector(".right");
    right.classList.toggle("before", is);
    right.setAttribute("aria-busy", String(is));
  }

  let scheduled = false;
  function refresh() {
    if (scheduled) return;
    scheduled = true;
    requestAnimationFrame(() => { scheduled = false; attach(); plots().forEach(mark); markTokens(); dash.rooms.follow(); dash.forms.offer(); });
  }
  new MutationObserver(refresh).observe(document.documentElement, { childList: true, subtree: true });

  dash.spine = {
    // A click on any figure becomes a selection.
    clicked: function () {
      const context = dash.callback_context;
      const fired = (context.triggered || []).find((t) => t.value);
      if (!fired || dash.swaps.justEnded()) return dash.no_update;
      const id = fired.prop_id.slice(0, fired.prop_id.lastIndexOf("."));
      const holder = document.getElementById(id);
      const gd = holder && (holder.classList.contains("js-plotly-plot") ? holder : holder.querySelector(".js-plotly-plot"));
      const point = (fired.value.points || [])[0];
      if (!gd || !point) return dash.no_update;
      const chosen = read(metaOf(gd), point);
      return Object.keys(chosen).length ? merge(state.selection, chosen) : dash.no_update;
    },
    // Whether there is nothing left to look for: a look from before the last beginning does not end the looking.
    rest: function (idle, woken) {
      return Boolean(idle) && (idle[1] || null) === (woken || null);
    },
    // A row of a table that is about a head, a layer or a token selects it.
    row: function (rows) {
      const chosen = {};
      for (const name of known.columns) {
        if (rows && rows.length && Number.isInteger(rows[0][name])) chosen[name] = rows[0][name];
      }
      return Object.keys(chosen).length ? merge(state.selection, chosen) : dash.no_update;
    },
    // The selection changed: show it everywhere.
    show: function (selection) {
      const before = JSON.stringify(state.told || {});
      state.selection = state.told = selection || {};
      if (JSON.stringify(state.told) !== before) {
        clearTimeout(state.telling);
        state.telling = setTimeout(() => old(true), 150);
      }
      state.changed = performance.now();
      plots().forEach((gd) => { mark(gd); window.workbenchFit(gd); });
      markTokens();
      dash.forms.offer();
      reach();
      window.workbenchSelectionMilliseconds = performance.now() - state.changed;
      return dash.no_update;
    },
    // A large view has arrived.
    arrived: function (figure, of) {
      large = ((figure || {}).layout || {}).meta || {};
      stands = of || "";
      reach();
    },
    // What is said of the selection has arrived; until then the panel says that it is of the one before.
    told: function () {
      clearTimeout(state.telling);
      old(false);
      return dash.no_update;
    },
    // What is typed now, whatever has been sent: Run must not take an older text.
    run: function (clicks) {
      const typed = (id) => (document.getElementById(id) || { value: "" }).value;
      return clicks ? { text: typed("prompt"), other: typed("other"), clicks: clicks } : dash.no_update;
    },
    // An example was chosen: it is run as if it had been typed. The list is made anew with each prompt, and says nothing then.
    example: function (text) {
      const chat = known.chats.includes(text) ? "chat" : "raw";
      if (text && chat !== (document.querySelector("#chat input:checked") || {}).value) dash.set_props("chat", { value: chat });
      return text ? [text, { text: text, clicks: "example " + ++presses }] : [dash.no_update, dash.no_update];
    },
    scheme: function (clicks, scheme) {
      return clicks ? (scheme === "dark" ? "light" : "dark") : dash.no_update;
    },
    same: function (value) {
      return value;
    },
  };
  Object.assign(dash.spine, { state, merge, read, select, shapes, under, unpack });
})();
window.dash_clientside.spine.opened = function (clicks) {
  return clicks ? true : window.dash_clientside.no_update;
};
