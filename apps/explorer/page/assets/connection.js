// When the server does not answer, the page says so, keeps everything, and goes on when it is back. A window that is
// closed tells the server, so that it does not count as one that waits.
(function () {
  "use strict";
  const original = window.fetch;
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const place = (name) => new URL(name, document.baseURI.split(/[?#]/)[0]);
  const poll = JSON.parse(document.documentElement.dataset.workbench).poll;
  let waiting = null, names = null;

  function say(text) {
    let banner = document.getElementById("connection");
    if (!banner) {
      banner = document.createElement("div");
      banner.id = "connection";
      banner.className = "notice connection";
      banner.setAttribute("role", "alert");
      document.body.appendChild(banner);
    }
    banner.textContent = text;
    banner.hidden = !text;
  }

  function lost(status) {
    if (status === 403) say("The server was started again with a new token. Your prompt is in the address bar: open the address that the server printed, and paste what follows the # behind it.");
    else say("The server does not answer. Nothing on the page is lost; it goes on when the server is back.");
    if (!waiting) waiting = setInterval(ping, 1500);
  }

  // The server cannot read what this page sends, as when it was started again with other models: it says why.
  function refused(sentence, asked) {
    say(sentence);
    if (String((asked && asked.body) || "").includes('"poll.n_intervals"')) dash.set_props("poll", { disabled: true });
  }

  async function ping() {
    try {
      const answer = await original(place("alive"), { cache: "no-store" });
      if (answer.status === 403) return lost(403);
      if (!answer.ok) return;
    } catch (error) {
      return;
    }
    clearInterval(waiting);
    waiting = null;
    say("");
    dash.set_props("poll", { disabled: false, interval: poll }); // the look that was lost does not come back
  }

  dash.connection = {
    known: function (session, window) {
      names = { session: session, window: window };
    },
  };

  // A page that the browser keeps for the way back may go on: it only stops looking, and counts as closed after a while.
  window.addEventListener("pagehide", (event) => {
    if (names && !event.persisted) navigator.sendBeacon(place("leave"), JSON.stringify(names));
  });

  window.fetch = async function (...given) {
    const url = String((given[0] && given[0].url) || given[0]);
    if (!url.includes("_dash-update-component")) return original.apply(this, given);
    try {
      const answer = await original.apply(this, given);
      if (answer.status === 400) refused(await answer.clone().text(), given[1]);
      if (answer.status === 403 || answer.status === 502 || answer.status === 503) lost(answer.status);
      return answer;
    } catch (error) {
      lost(0);
      throw error;
    }
  };
})();
