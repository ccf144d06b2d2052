// Pinned prompts: up to eight, whose open view stands in a row of small multiples below the large one. The list is kept
// here and in the address; the server draws the row, and is asked again while something of it is on its way.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const known = JSON.parse(document.documentElement.dataset.workbench).pins; // most, and by what they are aligned
  const AGAIN = 700, PATIENCE = 15000; // milliseconds: while something is on its way; for an answer that was lost
  let texts = [], aligned = known.aligned[0][0], about = null, answered = "", asking = "", timer = null, patience = PATIENCE;

  const element = (parent, kind, words, told) => {
    const made = parent.appendChild(document.createElement(kind));
    if (words) made.textContent = words;
    for (const [name, value] of Object.entries(told || {})) made.setAttribute(name, value);
    return made;
  };
  const row = () => document.getElementById("pins-row");
  const sign = () => JSON.stringify([texts, aligned, about && about.sign]);

  function ask(again) {
    if (!texts.length || !about || (!again && (answered === sign() || asking === sign()))) return;
    clearTimeout(timer);
    asking = sign();
    timer = setTimeout(() => { patience *= 2; ask(true); }, patience);
    const [name, figure] = about.open;
    dash.set_props("pins-asked", { data: { texts: texts, view: { name: name, figure: figure }, aligned: aligned, sign: asking, at: performance.now() } });
  }

  function keep(next) {
    texts = next.slice(0, known.most);
    frame();
    dash.set_props("pinned", { data: texts });
    ask(false);
  }

  const shown = () => (dash.finder.shown || {}).text;

  // What stands in the row before anything of it has arrived; with the same prompts, what is there stays until then.
  function frame() {
    const holder = row(), button = document.getElementById("pin");
    if (!holder) return;
    const isFull = texts.length >= known.most && !texts.includes(shown());
    button.disabled = isFull || shown() === undefined;
    button.textContent = texts.includes(shown()) ? "Unpin" : "Pin";
    button.title = isFull ? known.most + " prompts are pinned: take one away first" : button.dataset.title;
    if (!texts.length) return clear(holder);
    if (!holder.firstChild) build(holder);
    const list = holder.querySelector(".pins-list");
    if (JSON.stringify(Array.from(list.children, (one) => one.dataset.text)) !== JSON.stringify(texts)) {
      list.querySelectorAll(".thumb-plot").forEach((plot) => window.Plotly && window.Plotly.purge(plot));
      list.replaceChildren();
      texts.forEach((text, at) => panel(list, text, at));
      answered = "";
    }
    list.querySelectorAll(".pin").forEach((one) => one.classList.toggle("current", one.dataset.text === shown()));
  }

  function clear(holder) {
    holder.querySelectorAll(".thumb-plot").forEach((plot) => window.Plotly && window.Plotly.purge(plot));
    holder.replaceChildren();
    answered = asking = "";
    clearTimeout(timer);
  }

  function build(holder) {
    element(holder, "div", "", { class: "pins-said", role: "status" });
    const body = element(holder, "div", "", { class: "pins-body" });
    element(body, "div", "", { class: "pins-list" });
    const side = element(body, "div", "", { class: "pins-side" });
    const label = element(side, "label", "below each other");
    const choice = element(label, "select", "", { class: "plain" });
    known.aligned.forEach(([value, words]) => element(choice, "option", words, { value: value }));
    choice.value = aligned;
    choice.addEventListener("change", () => dash.set_props("aligned", { data: choice.value }));
    element(side, "button", "Unpin all", { class: "plain" }).addEventListener("click", () => keep([]));
  }

  // A prompt that begins as others do is named by where it parts from them.
  function named(text) {
    const shared = (one, other) => { let n = 0; while (n < one.length && one[n] === other[n]) n += 1; return n; };
    const most = Math.max(0, ...texts.filter((other) => other !== text).map((other) => shared(text, other)));
    const from = text.lastIndexOf(" ", most) + 1;
    return from > 16 ? "\u2026 " + text.slice(from) : text;
  }

  function panel(list, text, at) {
    const one = element(list, "div", "", { class: "pin" });
    one.dataset.text = text;
    const head = element(one, "div", "", { class: "pin-head" });
    const open = element(head, "button", at + 1 + ". " + named(text), { class: "pin-open", title: text });
    open.addEventListener("click", () => {
      dash.set_props("prompt", { value: text });
      dash.set_props("go", { data: { text: text, clicks: "pin " + performance.now() } });
    });
    element(head, "button", "\u00d7", { class: "plain", "aria-label": "unpin prompt " + (at + 1), title: "unpin" }).addEventListener("click", () => keep(texts.filter((other) => other !== text)));
    element(one, "div", "", { class: "pin-figure" }).addEventListener("click", press);
  }

  // What is selected is selected in all of them: a token here is the counterpart of one of the shown prompt.
  const TOKENS = ["pos", "query", "key"];
  function moved(selection, at) {
    const chosen = Object.assign({}, selection);
    for (const name of TOKENS) {
      if (!(name in chosen)) continue;
      chosen[name] = at(chosen[name]);
      if (!(chosen[name] >= 0)) delete chosen[name];
    }
    return chosen;
  }

  // A token that the shown prompt has no counterpart of is not selected there; what else was pressed is.
  function press(event) {
    const place = event.currentTarget, gd = place.querySelector(".js-plotly-plot"), at = (place.newest || {}).at || [];
    const pressed = gd && dash.spine.under(gd, event);
    if (pressed) dash.spine.select(moved(pressed, (pos) => at.indexOf(pos)));
  }

  async function draw(place, part) {
    place.newest = part; // not `part`: an element has one of its own
    while (part.figure && !window.Plotly) await new Promise((done) => setTimeout(done, 100)); // it is on its way
    if (place.newest !== part || !place.isConnected) return; // something newer has come meanwhile
    const plot = place.querySelector(".thumb-plot");
    if (!part.figure) {
      if (plot && window.Plotly) window.Plotly.purge(plot);
      place.textContent = part.words || "";
      return;
    }
    if (!plot) place.textContent = "";
    await window.Plotly.react(plot || element(place, "div", "", { class: "thumb-plot" }), part.figure.data, part.figure.layout, { staticPlot: true, responsive: true });
  }

  dash.pins = {
    aligned: aligned,
    // The selection as it is marked in a figure: in that of a pinned prompt at the counterparts of its tokens, nowhere
    // where it has none.
    of: function (gd, selection) {
      const place = gd.closest && gd.closest(".pin-figure");
      if (!place) return selection;
      const at = (place.newest || {}).at || [], chosen = moved(selection, (pos) => at[pos]);
      return TOKENS.some((name) => name in selection && !(name in chosen)) ? {} : chosen;
    },
    // What the row should be of. open: name and figure of the open view; sign: what its result and drawing stand for.
    follow: function (open, sign, isShown) {
      about = isShown ? { open: open, sign: sign } : null;
      frame();
      ask(false);
    },
    // Another list of prompts, of a link or a step back.
    kept: function (given, by) {
      if (JSON.stringify(given || []) === JSON.stringify(texts) && by === aligned) return dash.no_update;
      texts = (given || []).slice(0, known.most);
      aligned = by || dash.pins.aligned;
      const choice = document.querySelector(".pins-side select");
      if (choice) choice.value = aligned;
      frame();
      ask(false);
      return dash.no_update;
    },
    drawn: function (answer) {
      if (!answer || answer.sign !== sign() || !row() || !row().firstChild) return dash.no_update;
      clearTimeout(timer);
      patience = PATIENCE;
      answered = asking = answer.sign;
      row().querySelector(".pins-said").textContent = answer.said;
      const places = row().querySelectorAll(".pin-figure");
      answer.prompts.forEach((part, at) => draw(places[at], part));
      if (answer.prompts.some((part) => part.waits)) timer = setTimeout(() => ask(true), AGAIN);
      return dash.no_update;
    },
  };

  document.addEventListener("click", (event) => {
    if (!event.target.closest || !event.target.closest("#pin") || shown() === undefined) return;
    keep(texts.includes(shown()) ? texts.filter((text) => text !== shown()) : texts.concat([shown()]));
  });
})();
