// When the server does not answer, the page says so, keeps everything, and goes on when it is back.
(function () {
  "use strict";
  const original = window.fetch;
  let waiting = null;

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

  async function ping() {
    try {
      const answer = await original(new URL("alive", document.baseURI.split(/[?#]/)[0]), { cache: "no-store" });
      if (answer.status === 403) return lost(403);
      if (!answer.ok) return;
    } catch (error) {
      return;
    }
    clearInterval(waiting);
    waiting = null;
    say("");
    window.dash_clientside.set_props("poll", { disabled: false, interval: 250 }); // the look that was lost does not come back
  }

  window.fetch = async function (...given) {
    const url = String((given[0] && given[0].url) || given[0]);
    if (!url.includes("_dash-update-component")) return original.apply(this, given);
    try {
      const answer = await original.apply(this, given);
      if (answer.status === 403 || answer.status === 502 || answer.status === 503) lost(answer.status);
      return answer;
    } catch (error) {
      lost(0);
      throw error;
    }
  };
})();
