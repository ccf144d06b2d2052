// The tabs of one room are shown: that of the open view, or the one that was chosen above them.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  let followed = null;

  const tabs = () => Array.from(document.querySelectorAll("#tabs [role=tab]"));

  function show(room) {
    tabs().forEach((tab) => { tab.hidden = tab.dataset.room !== room; });
    document.querySelectorAll(".room[data-room]").forEach((button) => {
      const open = button.dataset.room === room;
      button.setAttribute("aria-pressed", String(open));
      if (open) document.getElementById("question").textContent = button.dataset.question;
    });
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest(".room[data-room]");
    if (button) show(button.dataset.room);
  });

  dash.rooms = {
    // Another view was opened: its tab is among those that are seen.
    follow: function () {
      const tab = tabs().find((one) => one.getAttribute("aria-selected") === "true");
      if (!tab || tab === followed) return;
      followed = tab;
      show(tab.dataset.room);
      tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    },
  };
})();
