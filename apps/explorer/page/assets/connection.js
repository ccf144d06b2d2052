// When the server does not answer, the page says so, keeps everything, and goes on when it is back. A window that is
// closed tells the server, so that it does not count as one that waits.
(function () {
  "use strict";
  const original = window.fetch;
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const place = (name) => new URL(name, document.baseURI.split(/[?#]/)[0]);
  const poll = JSON.parse(document.documentElement.dataset.workbench).poll;
  // A look whose answer never comes would hold back whatever waits for it, Run too: it is given up, and the next one
  // begins. The more in a row, the longer each is waited for: a server that is merely slow comes to its answer.
  const FIRST = 5000, LONGEST = 60000; // milliseconds
  let patience = FIRST;
  let waiting = null, pinging = false, names = null, unread = null;

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
    unread = output_of(asked);
    if (is_look(asked)) dash.set_props("poll", { disabled: true });
  }

  // What was typed was the reason, and is not any more.
  function taken(asked) {
    if (unread === null || output_of(asked) !== unread) return;
    unread = null;
    if (!waiting) say("");
  }

  function output_of(asked) {
    try {
      return String(JSON.parse(asked.body).output);
    } catch (error) {
      return null;
    }
  }

  function is_look(asked) {
    return String((asked && asked.body) || "").includes('"poll.n_intervals"');
  }

  // Not the page of a proxy that asks who it is, nor half an answer: Dash would wait a minute for the next look.
  function is_ours(said) {
    try {
      return Boolean(JSON.parse(said));
    } catch (error) {
      return false;
    }
  }

  // The answer to a look; "nothing new" in place of one that does not come in time, or is none of ours.
  async function looked(where, asked) {
    const stop = new AbortController();
    let is_late = false;
    const late = setTimeout(() => { is_late = true; stop.abort(); }, patience);
    try {
      const answer = await original(where, Object.assign({}, asked, { signal: stop.signal }));
      const said = await answer.clone().text(); // all of it, and not its head alone
      patience = FIRST;
      if (answer.status !== 200 || is_ours(said)) return answer;
      lost(0);
      return new Response(null, { status: 204 });
    } catch (error) {
      if (!is_late) throw error;
      if (patience > FIRST) lost(0); // the second in a row
      patience = Math.min(LONGEST, 2 * patience);
      return new Response(null, { status: 204 });
    } finally {
      clearTimeout(late);
    }
  }

  // Any other call is waited for as long as it takes. After a while what costs the server nothing tells one that works
  // from one that stands still: a press would have no sign, where nothing runs that is looked for.
  async function called(where, asked) {
    const late = setTimeout(listen, FIRST);
    try {
      return await original(where, asked);
    } finally {
      clearTimeout(late);
    }
  }

  async function listen() {
    const late = setTimeout(() => lost(0), FIRST);
    try {
      await original(place("alive"), { cache: "no-store" });
    } catch (error) {
      lost(0);
    } finally {
      clearTimeout(late);
    }
  }

  async function ping() {
    if (pinging) return; // a browser keeps few connections: those that wait would hold back what is pressed
    pinging = true;
    try {
      const answer = await original(place("alive"), { cache: "no-store" });
      if (answer.status === 403) return lost(403);
      if (answer.status !== 204) return; // not the server's own
    } catch (error) {
      return;
    } finally {
      pinging = false;
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
      const answer = is_look(given[1]) ? await looked(given[0], given[1]) : await called(given[0], given[1]);
      if (answer.status === 400) refused(await answer.clone().text(), given[1]);
      if (answer.ok) taken(given[1]);
      if (answer.status === 403 || answer.status === 502 || answer.status === 503) lost(answer.status);
      return answer;
    } catch (error) {
      lost(0);
      throw error;
    }
  };
})();
