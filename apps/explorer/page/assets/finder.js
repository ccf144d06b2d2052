// Ctrl K: a view by its title or question, a head (L18H6), a layer (L18) or a token of the prompt, found by typing.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const MOST = 12;
  let dialog = null, found = [], at = 0;

  const views = () =>
    Array.from(document.querySelectorAll("#tabs [role=tab]")).map((tab) => {
      const room = Array.from(document.querySelectorAll(".room")).find((one) => one.dataset.room === tab.dataset.room);
      const open = () => dash.set_props("view", { data: { name: tab.dataset.view, figure: 0 } });
      return { text: tab.textContent, beside: room ? room.dataset.question : "", asks: tab.dataset.question, open: open };
    });

  // What stands among the rooms and is no view: it opens as if it were pressed.
  const sheets = () =>
    Array.from(document.querySelectorAll("[data-find]")).map((button) => {
      return { text: button.dataset.find, beside: button.dataset.question, open: () => button.click() };
    });

  const tokens = () =>
    Array.from(document.querySelectorAll("#tokens [data-pos]")).map((chip) => {
      const pos = Number(chip.dataset.pos);
      return { text: chip.firstChild.textContent, beside: "token " + pos, open: () => dash.spine.select({ pos: pos }) };
    });

  // A head or a layer by its name, where the model has it; why not, where it has none of that name.
  function unit(text) {
    const named = text.match(/^l(?:ayer)? ?(\d+)(?:[ ,.]*h(?:ead)? ?(\d+))?$/i); // as people write it: L18H6, l18 h6, layer 18 head 6
    const sizes = dash.finder.shown && dash.finder.shown.sizes;
    if (!named || !sizes) return null;
    const layer = Number(named[1]), head = named[2] === undefined ? null : Number(named[2]);
    if (layer >= sizes.n_layers || (head !== null && head >= sizes.n_heads)) {
      return { why: "The model has layers 0 to " + (sizes.n_layers - 1) + ", of heads 0 to " + (sizes.n_heads - 1) + "." };
    }
    const chosen = head === null ? { layer: layer } : { layer: layer, head: head };
    return { text: "L" + layer + (head === null ? "" : "H" + head), beside: head === null ? "layer" : "head", open: () => dash.spine.select(chosen) };
  }

  function search(text) {
    const wanted = text.trim().toLowerCase();
    const one = unit(text.trim());
    if (one && one.why) return one;
    const holds = (item) => (item.text + " " + item.beside).toLowerCase().includes(wanted);
    const spaced = (item) => holds({ text: item.text.replaceAll("·", ""), beside: item.beside });
    // Last what has every word that was typed at the beginning of one of its own: who asks need not know the title.
    const typed = wanted.split(/\s+/).filter(Boolean);
    const words = (item) => [item.text, item.beside, item.asks || ""].join(" ").toLowerCase().split(/[\s,.;:?()]+/);
    const asks = (item) => !holds(item) && typed.every((word) => words(item).some((one) => one.startsWith(word)));
    const named = views().concat(sheets());
    const items = (one ? [one] : []).concat(named.filter(holds), wanted ? tokens().filter(spaced) : [], named.filter(asks));
    return { items: items, why: items.length ? "" : "No view, head or token of that name." };
  }

  function draw() {
    const answer = search(dialog.querySelector("input").value);
    const list = dialog.querySelector("ul"), why = dialog.querySelector("p");
    const all = answer.items || [];
    found = all.slice(0, MOST);
    at = Math.min(at, Math.max(0, found.length - 1));
    list.replaceChildren(...found.map((item, index) => {
      const row = document.createElement("li");
      row.id = "found-" + index;
      row.setAttribute("role", "option");
      row.setAttribute("aria-selected", String(index === at));
      row.append(item.text);
      row.appendChild(document.createElement("span")).textContent = item.beside;
      row.addEventListener("click", () => take(item));
      return row;
    }));
    why.textContent = answer.why || (all.length > MOST ? all.length - MOST + " more: type on." : "");
    dialog.querySelector("input").setAttribute("aria-activedescendant", found.length ? "found-" + at : "");
    const row = list.children[at];
    if (row) row.scrollIntoView({ block: "nearest" });
  }

  function take(item) {
    dialog.close();
    if (item) item.open();
  }

  function make() {
    dialog = document.createElement("dialog");
    dialog.className = "find";
    dialog.setAttribute("aria-label", "Find a view, a head or a token");
    const field = dialog.appendChild(document.createElement("input"));
    const told = { role: "combobox", "aria-expanded": "true", "aria-controls": "found", "aria-autocomplete": "list", "aria-label": "View, head such as L18H6, or token" };
    for (const [name, value] of Object.entries(told)) field.setAttribute(name, value);
    field.placeholder = "a view, a head (L18H6) or a token";
    const list = dialog.appendChild(document.createElement("ul"));
    list.id = "found";
    list.setAttribute("role", "listbox");
    list.setAttribute("aria-label", "Found");
    dialog.appendChild(document.createElement("p")).setAttribute("role", "status");
    field.addEventListener("input", () => { at = 0; draw(); });
    dialog.addEventListener("keydown", (event) => {
      event.stopPropagation(); // the page's own keys rest meanwhile
      if (event.key === "Enter") {
        event.preventDefault(); // the button that has the focus again would open it once more
        take(found[at]);
      }
      const moves = { ArrowDown: 1, ArrowUp: -1 };
      if (!moves[event.key] || !found.length) return;
      event.preventDefault();
      at = (at + moves[event.key] + found.length) % found.length;
      draw();
    });
    document.body.appendChild(dialog);
  }

  function open() {
    if (!dialog) make();
    if (dialog.open) return;
    dialog.querySelector("input").value = "";
    at = 0;
    draw();
    dialog.showModal();
  }

  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
      event.preventDefault();
      open();
    }
  });
  document.addEventListener("click", (event) => {
    if (event.target.closest && event.target.closest("#find")) open();
  });

  dash.finder = { shown: null, search: search };
})();
