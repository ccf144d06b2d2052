// The small multiples. One answer of the server brings those that have changed, and they are drawn when there is time and
// they are in sight: none of them is a component of its own.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const PATIENCE = 15000; // milliseconds after which an answer is no longer waited for; longer where it was in vain
  const stands = new Map(); // by view: what its place stands for
  const figures = new Map(); // by view: the figure that waits to be seen
  let patience = 0, asked = 0, drawing = false, latest = null;

  const places = () => Array.from(document.querySelectorAll("[data-thumb]"));
  const place = (name) => places().find((one) => one.dataset.thumb === name);

  function say(name, words) {
    const holder = place(name);
    figures.delete(name);
    if (!holder) return;
    const plot = holder.querySelector(".js-plotly-plot");
    if (plot && window.Plotly) window.Plotly.purge(plot);
    holder.textContent = words;
  }

  // What to ask of the server: places that stand for something else than they should. What has no result needs no answer.
  function lacking() {
    const wanted = {};
    for (const holder of places()) {
      const name = holder.dataset.thumb, sign = latest.sign(name);
      if (stands.get(name) === sign || name === latest.resting) continue;
      if (latest.has(name)) {
        wanted[name] = sign;
        continue;
      }
      stands.set(name, sign);
      say(name, sign ? "not computed yet" : "");
    }
    return wanted;
  }

  // One question at a time: an answer that a newer question overtakes is lost.
  function ask() {
    if (!latest || performance.now() - asked < patience) return;
    const wanted = lacking();
    if (!Object.keys(wanted).length) return;
    asked = performance.now();
    patience = Math.max(PATIENCE, 2 * patience);
    dash.set_props("wanted", { data: wanted });
  }

  const seen = new IntersectionObserver((entries) => {
    entries.forEach((entry) => { entry.target.dataset.seen = entry.isIntersecting ? "yes" : ""; });
    next();
  });

  const rest = window.requestIdleCallback || ((work) => setTimeout(work, 50));
  function next() {
    if (drawing) return;
    const name = Array.from(figures.keys()).find((one) => (place(one) || { dataset: {} }).dataset.seen);
    if (name === undefined) return;
    drawing = true;
    rest(() => draw(name), { timeout: 2000 });
  }

  async function draw(name) {
    const figure = figures.get(name), holder = place(name);
    try {
      if (!figure || !holder) return;
      if (!window.Plotly) return void (await new Promise((done) => setTimeout(done, 100)));
      figures.delete(name);
      let plot = holder.querySelector(".thumb-plot");
      if (!plot) {
        holder.textContent = "";
        plot = holder.appendChild(document.createElement("div"));
        plot.className = "thumb-plot";
      }
      await window.Plotly.react(plot, figure.data, figure.layout, { staticPlot: true, responsive: true });
    } finally {
      drawing = false;
      next();
    }
  }

  dash.thumbs = {
    // What each place should stand for. sign: by the name of its view; has: whether the server knows anything of it;
    // resting: the view whose display control moves, and whose place follows when that rests.
    follow: function (sign, has, open, resting) {
      latest = { sign: sign, has: has, resting: resting };
      for (const holder of places()) {
        if (!holder.dataset.watched) {
          holder.dataset.watched = "yes";
          seen.observe(holder);
        }
        holder.parentElement.classList.toggle("current", holder.dataset.thumb === open);
      }
      ask();
    },
    draw: function (answer) {
      patience = 0;
      for (const [name, part] of Object.entries(answer || {})) {
        stands.set(name, part.sign);
        if (!part.figure) say(name, part.words);
        else {
          const holder = place(name);
          if (holder && !holder.querySelector(".thumb-plot")) holder.textContent = ""; // "not computed yet" is no longer true
          figures.set(name, part.figure);
        }
      }
      next();
      ask();
    },
  };
})();
