// Links: the address's fragment, which no server log ever sees, says what is shown; opening it shows the same again.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const no = () => dash.no_update;
  let resting = null, seen = "", building = 0, listed = null;
  // The view that is open, the one that was asked for, what its figure stands for, and whether that is on its way.
  let open = "", asked = "", wanted = "", awaited = false, coming = false;
  let named = ""; // the model at the top of the page
  let written = "", since = 0, touched = false, returning = null;
  const ours = new Set(); // what was written here; any other address that arrives is a link

  function parse(fragment) {
    const given = new URLSearchParams(fragment.replace(/^#/, ""));
    if (!given.has("prompt")) return null;
    const link = { text: given.get("prompt"), model: given.get("model") || "", weights: given.get("weights") || "", other: given.get("other") || "", otherModel: given.get("other-model") || "", compare: given.get("compare") || "" };
    for (const name of ["params", "display", "select", "view", "edits", "chat", "pins", "aligned"]) {
      try {
        link[name] = JSON.parse(given.get(name) || "null");
      } catch (error) {
        link.broken = name;
      }
    }
    return link;
  }

  function fragment(shown, other, mode, view, selection, display, pins, aligned) {
    const given = new URLSearchParams();
    given.set("model", shown.model);
    given.set("weights", (shown.weights || "").slice(0, 12));
    given.set("prompt", shown.text);
    if (shown.chat) given.set("chat", "true");
    if ((shown.edits || []).length) given.set("edits", JSON.stringify(shown.edits));
    if (other && other.text !== shown.text) given.set("other", other.text);
    if (other && other.model !== shown.model) given.set("other-model", other.model);
    if (other && mode === "difference") given.set("compare", mode);
    given.set("view", JSON.stringify(view));
    if (Object.keys(selection || {}).length) given.set("select", JSON.stringify(selection));
    if (Object.keys(shown.params || {}).length) given.set("params", JSON.stringify(shown.params));
    if (Object.keys(display || {}).length) given.set("display", JSON.stringify(display));
    if ((pins || []).length) given.set("pins", JSON.stringify(pins));
    if ((pins || []).length && aligned && aligned !== dash.pins.aligned) given.set("aligned", JSON.stringify(aligned));
    return "#" + given.toString();
  }

  // What is being drawn says so to everybody: by standing back, and to a screen reader, which waits for the whole.
  function stand() {
    const is = coming || awaited || open !== asked;
    const main = document.getElementById("main-figure");
    main.classList.toggle("stale", is);
    main.setAttribute("aria-busy", String(is));
  }

  // Parts of a study may come faster than one is drawn. The next is asked for when the one before has arrived, or does
  // not arrive: Dash would hold a figure back as long as newer ones are asked for, and the page stood still for all of it.
  const LONGEST = 15000; // milliseconds
  let flying = "", next = "", overdue = null;

  function fly(main) {
    flying = main;
    clearTimeout(overdue);
    overdue = setTimeout(land, LONGEST);
  }

  function land() {
    const main = next;
    clearTimeout(overdue);
    flying = next = "";
    if (!main) return;
    fly(main);
    wanted = main;
    dash.set_props("drawn", { data: main });
    dash.set_props("rested", { data: main });
  }

  // A table arrives as a whole and is built piece by piece: its header has no cells and no names at first.
  function whenBuilt(expected, turn) {
    if (turn !== building) return; // something else is shown by now
    const holder = document.getElementById("table-holder");
    const headers = Array.from(holder.querySelectorAll(".ag-header-row-column [role=columnheader]"));
    const named = headers.length > 0 && headers.every((header) => header.querySelector(".ag-header-cell-text"));
    const built = !expected || (named && Boolean(holder.querySelector(".ag-row, .ag-overlay")));
    holder.setAttribute("aria-busy", String(!built));
    if (!built) setTimeout(() => whenBuilt(expected, turn), 50);
  }

  dash.links = {
    // The address that the page was opened with; later ones are steps back and forth, see `popstate`.
    read: function (hash) {
      return (!written && parse(hash || "")) || no();
    },
    // What is shown stands in the address. Each step is one of the browser's history, so that Back undoes it; what
    // follows by itself, within a second or at the same run without anybody's touch, and what comes while an earlier
    // step is shown again, belongs to the step.
    write: function (shown, other, view, selection, mode, display, pins, aligned) {
      dash.finder.shown = shown;
      if (!shown) return no();
      const next = fragment(shown, other, mode, view, selection, display, pins, aligned), now = performance.now();
      if (next === written) return no();
      const follows = written && !touched && !differing(parse(next), parse(written), RUN);
      const joined = !written || returning !== null || now - since < 1000 || follows;
      touched = false;
      window.history[joined ? "replaceState" : "pushState"](window.history.state, "", next);
      if (returning && (next === returning.fragment || now > returning.until)) returning = null;
      written = next;
      ours.add(next);
      if (!follows) since = now;
      return no();
    },
    // Show what a link says, on a page that shows something already.
    open: function (link) {
      dash.set_props("link", { data: link });
    },
    parse: parse,
    fragment: fragment,
    // Prompts of this browser, newest first, beside the examples.
    remember: function (shown, history, data) {
      const examples = data.filter((group) => group.group === "Examples");
      const kept = (history || []).filter((text) => !shown || text !== shown.text);
      const next = shown ? [shown.text].concat(kept).slice(0, 20) : kept;
      const named = new Set(examples.flatMap((group) => group.items.map((item) => item.value)));
      const items = next.filter((text) => text && !named.has(text)).map((text) => ({ value: text, label: text.slice(0, 60) }));
      return [next, items.length ? examples.concat([{ group: "Before", items: items }]) : examples];
    },
    copy: async function (clicks) {
      if (!clicks) return no();
      const before = document.getElementById("link-copy");
      try {
        await navigator.clipboard.writeText(window.location.href);
        setTimeout(() => dash.set_props("link-copy", { children: "Copy link" }), 2000);
        return "Copied";
      } catch (error) {
        return "Copy it from the address bar";
      }
    },
    // Which figures must be drawn anew: only those whose own result, display parameters, or the theme, changed.
    drawn: function (shown, done, view, scheme, display, beforeMain, beforeRested) {
      dash.finder.shown = shown; // this may be called before `write`
      const look = (name) => JSON.stringify((display || {})[name] || "");
      const sign = (name) => (shown ? [shown.keys[name] || shown.id, (done || {})[name] || "", scheme, look(name)].join(" ") : "");
      const has = (name) => Boolean((done || {})[name]);
      const main = [view.name, view.figure, sign(view.name)].join(" ");
      // While a display control moves, only the large view follows at once: what stands around it, and its small
      // multiple, when the hand rests. The server would have to make all of them at the same time.
      const changed = dash.callback_context.triggered || [];
      const moving = changed.length > 0 && changed.every((t) => t.prop_id === "display.data");
      clearTimeout(resting);
      dash.thumbs.follow(sign, has, view.name, moving ? view.name : null);
      if (!moving) dash.pins.follow([view.name, view.figure], main, Boolean(shown));
      if (moving) {
        resting = setTimeout(() => {
          dash.thumbs.follow(sign, has, view.name, null);
          dash.pins.follow([view.name, view.figure], main, Boolean(shown));
          dash.set_props("rested", { data: main });
        }, 600);
      }
      // What is only refined, by the next part of a study, may be read meanwhile.
      const of = [view.name, view.figure, shown && (shown.keys[view.name] || shown.id), look(view.name)].join(" ");
      if (of === seen && flying) {
        next = main === flying ? "" : main;
        return [no(), no()];
      }
      awaited = awaited || of !== seen;
      seen = of;
      next = "";
      if (main !== beforeMain) fly(main);
      asked = open = [view.name, view.figure].join();
      wanted = main;
      stand();
      return [main === beforeMain ? no() : main, !shown || moving || main === beforeRested ? no() : main];
    },
    // Another view, or the open one again, as it is. What is open may be older than what was pressed last.
    turnTo: function (name) {
      const [before, figure] = open.split(",");
      dash.set_props("view", { data: { name: name, figure: name === before ? Number(figure) : 0 } });
    },
    // The open view is the chosen one in the tabs and in the list.
    turned: function (view) {
      listed = view.name;
      open = [view.name, view.figure].join();
      if (asked) stand(); // it is asked for when the look that is under way was answered
      dash.set_props("view-list", { value: view.name });
      return view.name;
    },
    // Another entry of the list was chosen by somebody; what `turned` wrote may be read when there is another view again.
    turn: function (name, view) {
      return !name || name === listed || name === view.name ? no() : { name: name, figure: 0 };
    },
    // Another run was asked for than the shown one: the tokens of the shown one stand back if they may not stay, and its
    // figure if it may not.
    waits: function (request, shown, view) {
      const differs = (name) => JSON.stringify(request[name] || null) !== JSON.stringify(shown[name] || null);
      const is = Boolean(request && shown && !request.ended && request.id !== shown.id);
      const other = is && ["text", "model", "chat", "edits"].some(differs);
      const values = (run) => JSON.stringify((run.params || {})[view.name] || {});
      coming = other || (is && values(request) !== values(shown));
      document.getElementById("tokens").classList.toggle("before", other);
      stand();
      return no();
    },
    // The model that the page names at the top may have refused the prompt: what is shown is of another one, and says so.
    whose: function (loaded, shown) {
      if (loaded && !loaded.failed) named = loaded.model; // of one that did not load nothing is said there
      const other = shown && named && shown.model !== named;
      for (const place of ["tokens", "main-figure"].map((id) => document.getElementById(id)).filter(Boolean)) {
        if (other) place.dataset.whose = `${shown.model}, not of ${named}`;
        else delete place.dataset.whose;
      }
      return no();
    },
    // A large view has arrived. Until it is the one that was asked for last, what is there stands back.
    fresh: function (figure, message, table, stands) {
      land();
      awaited = awaited && !String(stands).startsWith(wanted + " ");
      stand();
      dash.spine.arrived(figure, stands);
      whenBuilt(Boolean(table) && Boolean(table.props) && table.props.id === "table", ++building);
      return no();
    },
    // Pictures are made by the plot itself; the other exports are asked of the server: what is asked, null for nothing.
    picture: function (kind, clicks) {
      // A table has no picture, and is taken as it is sorted and filtered.
      if (document.querySelector("#table-holder .ag-root")) {
        const rows = [];
        window.dash_ag_grid.getApi("table").forEachNodeAfterFilterAndSort((node) => rows.push(node.data.row));
        return { kind: kind, clicks: clicks, rows: rows };
      }
      if (kind !== "png" && kind !== "svg") return { kind: kind, clicks: clicks };
      const gd = document.querySelector("#main-figure .js-plotly-plot");
      if (gd) {
        const box = gd.getBoundingClientRect();
        const options = { format: kind, width: Math.round(box.width), height: Math.round(box.height), filename: (((parse(window.location.hash) || {}).view) || {}).name || "workbench" };
        if (kind === "png") options.scale = 2;
        const paper = getComputedStyle(document.querySelector(".centre")).backgroundColor;
        // Without meta: titles, labels and words of a picture are fitted already.
        const layout = Object.assign({}, gd.layout, { paper_bgcolor: paper, meta: null });
        // Below the title stands what the page shows elsewhere: prompt, model, sentence (figures/caption.py).
        const caption = (gd.layout.meta || {}).caption || [];
        if (caption.length) {
          const small = '<span style="font-size:11px">' + caption.join("<br>") + "</span>";
          const title = (layout.title || {}).text;
          const top = (layout.margin || {}).t;
          const pad = (layout.title || {}).pad || {};
          layout.title = Object.assign({}, layout.title, {
            text: title ? title + "<br>" + small : small,
            pad: Object.assign({}, pad, { b: (pad.b || 0) + 17 * caption.length }),
          });
          layout.margin = Object.assign({}, layout.margin, { t: (top === undefined ? 100 : top) + 17 * caption.length });
          options.height += 17 * caption.length;
          if (layout.height) layout.height += 17 * caption.length;
        }
        window.Plotly.downloadImage({ data: gd.data, layout: layout, config: {} }, options);
      }
      return null;
    },
  };

  // The name of a figure was chosen. The control comes anew with each view, so its value is no input of a callback.
  document.addEventListener("change", (event) => {
    const choice = event.target.closest && event.target.closest("#figure-choice");
    if (choice) dash.set_props("view", { data: { name: choice.firstElementChild.dataset.view, figure: Number(event.target.value) } });
  });

  // What one run differs in from another.
  const RUN = ["text", "model", "other", "otherModel", "compare", "params", "edits", "chat", "display"];
  const differing = (link, before, names) =>
    names.some((name) => JSON.stringify(link[name] || null) !== JSON.stringify(before[name] || null));
  window.addEventListener("popstate", () => {
    const link = parse(window.location.hash), before = parse(written);
    if (!link || !before) return;
    returning = { fragment: window.location.hash, until: performance.now() + 15000 };
    written = window.location.hash;
    const differs = (names) => differing(link, before, names);
    // A link that was pasted here may name a view or pins that there are not: the server reads it, and leaves them out.
    if (differs(RUN) || !ours.has(window.location.hash)) return dash.links.open(link);
    if (differs(["pins"])) dash.set_props("pinned", { data: link.pins || [] });
    if (differs(["aligned"])) dash.set_props("aligned", { data: link.aligned || dash.pins.aligned });
    if (differs(["view"]) && link.view) dash.set_props("view", { data: link.view });
    if (differs(["select"])) dash.set_props("selection", { data: link.select || {} });
  });
  for (const kind of ["pointerdown", "keydown", "click", "change"]) {
    document.addEventListener(kind, (event) => { if (event.isTrusted) { returning = null; touched = true; } }, true);
  }
})();
