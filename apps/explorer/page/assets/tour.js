// Five steps on an example that shows a finding: which head copies, whether it matters, and how to keep what was found.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  let dialog = null, at = 0, marked = null, mine = false; // mine: it put its example where another prompt stood

  const place = (selector) => document.querySelector(selector);
  const tab = (name) => place("#tabs [data-view='" + name + "']");
  const open = (name) => tab(name) && dash.set_props("view", { data: { name: name, figure: 0 } });
  const said = () => (place("#said") || {}).textContent || "";

  // The head that the sentence under the figure names: what the tour says is what was found here, not a text of its own.
  function named() {
    if (place("#main-figure.stale") || place("#main-message > div")) return null; // not drawn yet
    const found = said().match(/L(\d+)H(\d+)/);
    return found ? { layer: Number(found[1]), head: Number(found[2]) } : null;
  }

  const steps = [
    {
      words: () => "The model reads the text at the left; below stand its tokens. Here it shows what the model would say if it stopped at each depth: colours are probabilities. Click a token or a cell, and the panel at the right says more." + (mine ? " This is an example: the browser's Back leads to your own prompt again." : ""),
      mark: "#main-figure", view: "logit-lens",
      go: function () {
        const example = JSON.parse(document.documentElement.dataset.workbench).tour;
        const area = place("#prompt");
        if (!example || !area || (dash.finder.shown && dash.finder.shown.model.startsWith("toy"))) return; // no words there
        if (dash.finder.shown && dash.finder.shown.text === example) return;
        mine = true;
        dash.set_props("prompt", { value: example });
        dash.set_props("go", { data: { text: example, clicks: "tour " + performance.now() } });
      },
    },
    {
      words: "Each view answers a question, and says its finding in the sentence under it. This one asks which heads look at what followed the same token the last time: those that copy.",
      mark: "#said", view: "induction-on-prompt",
    },
    {
      words: () => {
        const head = named();
        return (head ? "L" + head.layer + "H" + head.head + ", which the sentence names, is selected now" : "A cell of the grid is a head: click one") + ". At the right stands where it looks; the selection goes with you through all views.";
      },
      mark: ".right", view: "induction-on-prompt",
      // False: what it is about is not drawn yet.
      go: () => Boolean(named()) && (dash.spine.select(named()), true),
    },
    {
      words: "Looking is not mattering. A button here takes the head out and compares with other heads as loud: an effect no larger than theirs is none. The form at the left says what will be done; Start begins.",
      mark: "#params-form", view: "causal-check",
    },
    {
      words: "Visit keeps everything that was drawn, with its sentence: star it, note it, save it as a file, or as one page to send. Find (Ctrl K) goes to any view, head or token. Copy link keeps this very state.",
      mark: "#visit-open", view: "",
    },
  ].map((step, index) => Object.assign({ number: index + 1 }, step));

  function mark(selector) {
    if (marked) marked.classList.remove("toured");
    marked = selector ? place(selector) : null;
    if (marked) marked.classList.add("toured");
  }

  function show(index) {
    at = index;
    const step = steps[at];
    if (step.view) open(step.view);
    if (step.go && step.go() === false) again(step, performance.now() + 30000);
    mark(step.mark);
    write();
  }

  function again(step, until) {
    setTimeout(() => {
      if (!dialog.open || steps[at] !== step || performance.now() > until) return;
      if (step.go() === false) return again(step, until);
      write();
    }, 250);
  }

  function write() {
    const step = steps[at];
    dialog.querySelector("b").textContent = "Tour, " + step.number + " of " + steps.length;
    dialog.querySelector("p").textContent = typeof step.words === "function" ? step.words() : step.words;
    const [back, next] = dialog.querySelectorAll("button");
    back.disabled = at === 0;
    next.textContent = at === steps.length - 1 ? "End" : "Next";
  }

  function end() {
    dialog.close();
    mark(null);
  }

  function make() {
    dialog = document.createElement("dialog");
    dialog.className = "tour";
    dialog.setAttribute("aria-label", "Tour");
    dialog.appendChild(document.createElement("b"));
    dialog.appendChild(document.createElement("p")).setAttribute("aria-live", "polite");
    const row = dialog.appendChild(document.createElement("div"));
    row.className = "row";
    const button = (words, press) => {
      const made = row.appendChild(document.createElement("button"));
      Object.assign(made, { className: "plain", textContent: words });
      made.addEventListener("click", press);
    };
    button("Back", () => show(Math.max(0, at - 1)));
    button("Next", () => (at === steps.length - 1 ? end() : show(at + 1)));
    button("Close", end);
    dialog.addEventListener("keydown", (event) => {
      event.stopPropagation();
      if (event.key === "Escape") end();
    });
    place(".frame").appendChild(dialog);
  }

  // Escape closes it wherever the focus is: true where there was something to close.
  dash.tour = { close: () => Boolean(dialog && dialog.open) && (end(), true) };

  document.addEventListener("click", (event) => {
    if (!event.target.closest || !event.target.closest("#tour")) return;
    if (!dialog) make();
    dialog.show(); // beside the page, which can be used meanwhile
    mine = false;
    show(0);
  });
})();
