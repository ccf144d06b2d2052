// The tabs of one room are shown: that of the open view. A room that is chosen opens the view that was open in it last,
// or its first, where there is one of what this model has. Where tabs need more room than there is, the row scrolls by
// whole titles, and fades where there are more.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const left = {}; // by room, the view that was open in it last
  let followed = null, elsewhere = new Set();

  const tabs = () => Array.from(document.querySelectorAll("#tabs [role=tab]"));
  const listed = () => tabs().filter((tab) => !tab.hidden);

  function show(room) {
    tabs().forEach((tab) => { tab.hidden = tab.dataset.room !== room; });
    document.querySelectorAll(".room[data-room]").forEach((button) => {
      const open = button.dataset.room === room;
      button.setAttribute("aria-pressed", String(open));
      if (open) document.getElementById("question").textContent = button.dataset.question;
    });
    fit();
  }

  // How wide a row may be up to the end of a title: where others are behind it, it fades.
  const room = (row, shown, tab) => row.clientWidth - (tab === shown[shown.length - 1] ? 0 : 28);

  // The first of the titles that are seen where the row has scrolled as little as shows this one.
  function first(row, shown, tab) {
    return shown.find((one) => tab.offsetLeft + tab.offsetWidth - one.offsetLeft <= room(row, shown, tab)) || tab;
  }

  // The question gives way to the titles. Behind the last there is as much as lets the row end at the start of a title.
  function fit() {
    const shown = listed(), row = document.querySelector("#tabs [role=tablist]");
    if (!row || !shown.length) return;
    const last = shown[shown.length - 1], line = row.closest(".tabs-row");
    const length = () => last.offsetLeft + last.offsetWidth - shown[0].offsetLeft;
    line.classList.remove("tight");
    row.style.setProperty("--behind", "0px");
    if (length() <= row.clientWidth) return ends();
    line.classList.add("tight");
    const from = first(row, shown, last);
    const seen = last.offsetLeft + last.offsetWidth - from.offsetLeft;
    row.style.setProperty("--behind", Math.max(0, row.clientWidth - seen) + "px");
    reveal(shown.find((tab) => tab.getAttribute("aria-selected") === "true") || shown[0]);
  }

  const sizes = new ResizeObserver(() => fit());

  function reveal(tab) {
    const shown = listed(), row = tab.parentElement;
    if (!shown.includes(tab)) return;
    const start = (one) => one.offsetLeft - shown[0].offsetLeft;
    let from = shown.find((one) => start(one) >= row.scrollLeft - 1) || shown[0];
    if (start(tab) < start(from)) from = tab;
    if (start(tab) + tab.offsetWidth > start(from) + room(row, shown, tab)) from = first(row, shown, tab);
    row.scrollLeft = start(from);
    ends();
  }

  // Whether there are titles before and behind those that are seen.
  function ends() {
    const row = document.querySelector("#tabs [role=tablist]"), shown = listed(), last = shown[shown.length - 1];
    if (!row || !last) return;
    row.classList.toggle("before", row.scrollLeft > 1);
    row.classList.toggle("behind", last.offsetLeft + last.offsetWidth - shown[0].offsetLeft > row.scrollLeft + row.clientWidth + 1);
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest(".room[data-room]");
    if (!button) return;
    show(button.dataset.room);
    const shown = listed();
    if (shown.some((tab) => tab.getAttribute("aria-selected") === "true")) return;
    const last = shown.find((tab) => tab.dataset.view === left[button.dataset.room]);
    (last || shown.find((tab) => !elsewhere.has(tab.dataset.view)) || shown[0]).click();
  });
  // What the keys reach is shown whole; under a pointer nothing may move, or its click ends beside the title.
  document.addEventListener("focusin", (event) => {
    if (event.target.matches && event.target.matches("#tabs [role=tab]:focus-visible")) reveal(event.target);
  });
  document.addEventListener("scroll", (event) => { if (event.target.matches && event.target.matches("#tabs [role=tablist]")) ends(); }, true);

  dash.rooms = {
    // A model is there: views of what it has not step back.
    known: function (loaded) {
      elsewhere = new Set((loaded && loaded.elsewhere) || []);
      tabs().forEach((tab) => {
        const is = elsewhere.has(tab.dataset.view);
        tab.classList.toggle("elsewhere", is);
        tab.title = is ? "of what other models have" : "";
      });
      return dash.no_update;
    },
    // Another view was opened: its tab is among those that are seen.
    follow: function () {
      const tab = tabs().find((one) => one.getAttribute("aria-selected") === "true");
      if (!tab || tab === followed) return;
      if (!followed) sizes.observe(tab.closest(".tabs-row"));
      followed = tab;
      left[tab.dataset.room] = tab.dataset.view;
      show(tab.dataset.room);
      reveal(tab);
    },
  };
})();
