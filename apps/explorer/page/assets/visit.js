// The notebook of a visit: whatever was drawn, with its sentence, in the order in which it was seen. A step is shown again
// with a click, marked with a star, and noted; the whole is saved as a file that opens again, or as one page to send.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const MOST = 300; // steps; those without a star or a note go first
  const KIND = "interp-workbench visit";
  const NOTHING = "Nothing was drawn yet.";
  let dialog = null, steps = [], waiting = null;

  // What makes two steps the same: all of the link but the selection.
  const key = (link) => JSON.stringify([link.text, link.model, link.other, link.otherModel, link.compare, link.params, link.display, link.view, link.edits, link.chat, link.pins || null, link.aligned || null]);

  // drawn: what the dialog shows is so already; drawn anew, a button that is being pressed would be lost with its click.
  function keep(next, drawn) {
    const dear = (step) => step.star || step.note;
    steps = next;
    while (steps.length > MOST) steps.splice(Math.max(0, steps.findIndex((step) => !dear(step))), 1);
    dash.set_props("visit", { data: steps });
    const button = document.getElementById("visit-open");
    if (button) button.textContent = steps.length ? "Visit (" + steps.length + ")" : "Visit";
    if (dialog && dialog.open && !drawn) draw();
  }

  // The steps with one of them changed: by its link, since a note makes another object of it.
  const current = (step) => steps.find((one) => key(one.link) === key(step.link)) || step;
  const changed = (step, what) => steps.map((one) => (one === current(step) ? Object.assign({}, one, what) : one));

  const element = (parent, kind, words, told) => {
    const made = parent.appendChild(document.createElement(kind));
    if (words) made.textContent = words;
    for (const [name, value] of Object.entries(told || {})) made.setAttribute(name, value);
    return made;
  };

  function draw() {
    const list = dialog.querySelector("ol"), typing = list.contains(document.activeElement) ? document.activeElement : null;
    const held = typing && typing.dataset.note ? { of: typing.dataset.note, words: typing.value, at: typing.selectionStart } : null;
    list.replaceChildren();
    steps.slice().reverse().forEach((step) => {
      const row = element(list, "li");
      const head = element(row, "div", "", { class: "row between" });
      const title = element(head, "b", step.title);
      element(title, "span", " " + new Date(step.at).toLocaleTimeString());
      const tools = element(head, "div", "", { class: "row" });
      const star = element(tools, "button", step.star ? "★" : "☆", { class: "plain", "aria-pressed": String(step.star), "aria-label": "star: " + step.title, title: "a step that has a star can be saved without the others" });
      star.addEventListener("click", () => keep(changed(step, { star: !current(step).star })));
      const again = element(tools, "button", "Show again", { class: "plain" });
      again.addEventListener("click", () => { dialog.close(); dash.links.open(step.link); });
      const gone = element(tools, "button", "Forget", { class: "plain" });
      gone.addEventListener("click", () => keep(steps.filter((one) => one !== current(step))));
      element(row, "p", step.said);
      const own = (step.link.params || {})[(step.link.view || {}).name] || {};
      const about = [step.link.model, JSON.stringify(step.link.text.slice(0, 120))];
      if (Object.keys(own).length) about.push("with " + Object.entries(own).map(([name, value]) => name + " " + JSON.stringify(value)).join(", ").slice(0, 240));
      if (step.link.other) about.push("beside " + JSON.stringify(step.link.other.slice(0, 120)));
      if ((step.link.edits || []).length) about.push("changed: " + step.link.edits.join(", "));
      if ((step.link.pins || []).length) about.push("pinned prompts: " + step.link.pins.length);
      element(row, "p", about.join("; "), { class: "quiet" });
      const note = element(row, "input", "", { placeholder: "a note", "aria-label": "note on " + step.title, maxlength: "2000", "data-note": key(step.link) });
      note.value = step.note;
      note.addEventListener("change", () => keep(changed(step, { note: note.value }), true));
      if (!held || held.of !== note.dataset.note) return;
      note.value = held.words; // a step that arrives takes nothing from what is being typed
      note.focus({ preventScroll: true });
      note.setSelectionRange(held.at, held.at);
    });
    dialog.querySelector("[data-starred]").hidden = !steps.some((step) => step.star);
    if (!steps.length) say(NOTHING);
    else if (dialog.querySelector("[role=status]").textContent === NOTHING) say(""); // else it stays: a step may arrive at any time
  }

  function say(words) {
    dialog.querySelector("[role=status]").textContent = words;
  }

  function save() {
    const content = JSON.stringify({ kind: KIND, version: 1, steps: steps }, null, 1);
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([content], { type: "application/json" }));
    link.download = "visit.json";
    link.click();
    URL.revokeObjectURL(link.href);
  }

  const text = (value, most) => (typeof value === "string" ? value.slice(0, most) : "");
  function read(content) {
    const given = JSON.parse(content);
    if (!given || given.kind !== KIND || !Array.isArray(given.steps)) throw new Error("no visit");
    return given.steps.filter((step) => step && step.link && typeof step.link.text === "string" && typeof step.link.model === "string").map((step) => ({
      at: Number(step.at) || 0, title: text(step.title, 200), said: text(step.said, 5000), note: text(step.note, 2000), star: step.star === true, link: whole(step.link),
    }));
  }

  // A link of a file that somebody may have changed: its lists are lists of texts, as what is drawn of them expects.
  function whole(link) {
    const made = Object.assign({}, link);
    for (const name of ["edits", "pins"]) {
      if (!Array.isArray(made[name]) || made[name].some((one) => typeof one !== "string")) delete made[name];
    }
    return made;
  }

  async function load(file) {
    try {
      const found = read(await file.text());
      const known = new Set(found.map((step) => key(step.link)));
      keep(steps.filter((step) => !known.has(key(step.link))).concat(found));
      say(found.length + " steps were read.");
    } catch (error) {
      say("Got " + file.name + ", which holds no visit; expected a file that was saved here. Choose another one.");
    }
  }

  function make() {
    dialog = document.createElement("dialog");
    dialog.className = "visit";
    dialog.setAttribute("aria-label", "Notebook of this visit");
    const head = element(dialog, "div", "", { class: "row between" });
    element(head, "b", "This visit");
    const tools = element(head, "div", "", { class: "row" });
    const button = (words, work) => element(tools, "button", words, { class: "plain" }).addEventListener("click", work);
    const page = (taken) => () => {
      if (!taken().length) return draw();
      say("The page is being made.");
      dash.set_props("visit-take", { data: { clicks: performance.now(), steps: taken() } });
    };
    const starred = element(tools, "button", "Save those with ★", { class: "plain", "data-starred": "", title: "as one page (HTML)" });
    starred.addEventListener("click", page(() => steps.filter((step) => step.star)));
    button("Save as one page (HTML)", page(() => steps));
    button("Save as a file", save);
    const file = element(tools, "input", "", { type: "file", accept: ".json,application/json", hidden: "" });
    file.addEventListener("change", () => { if (file.files[0]) load(file.files[0]); file.value = ""; });
    button("Open a file", () => file.click());
    button("Close", () => dialog.close());
    element(dialog, "p", "", { role: "status", class: "quiet" });
    element(dialog, "ol");
    dialog.addEventListener("keydown", (event) => event.stopPropagation()); // the page's own keys rest meanwhile
    document.body.appendChild(dialog);
  }

  document.addEventListener("click", (event) => {
    if (!event.target.closest || !event.target.closest("#visit-open")) return;
    if (!dialog) make();
    if (!dialog.open) say("");
    draw();
    if (!dialog.open) dialog.showModal();
  });

  function record(said, figure, pins, aligned, shown, other, view, selection, mode, display) {
    const stale = document.getElementById("main-figure").classList.contains("stale");
    if (!shown || typeof said !== "string" || !said || stale || document.getElementById("main-message").textContent) return;
    const tab = Array.from(document.querySelectorAll("#tabs [role=tab]")).find((one) => one.dataset.view === view.name);
    const link = dash.links.parse(dash.links.fragment(shown, other, mode, view, selection, display, pins, aligned));
    const before = steps.find((step) => key(step.link) === key(link));
    const step = { at: Date.now(), title: tab ? tab.textContent : view.name, said: said, link: link, star: Boolean(before && before.star), note: (before && before.note) || "" };
    keep(steps.filter((one) => one !== before).concat([step]));
  }

  dash.visit = {
    // Something was drawn, and says something of itself. It counts when it has stood for a moment.
    note: function (...given) {
      const kept = given[given.length - 1];
      if (!steps.length && kept && kept.length) keep(kept); // the page was loaded again
      clearTimeout(waiting);
      waiting = setTimeout(() => record(...given), 400);
      return dash.no_update;
    },
    // The page to send has arrived.
    taken: function (content) {
      if (dialog && dialog.open) say(content ? "The page was saved." : "");
      return dash.no_update;
    },
    read: read,
  };
})();
