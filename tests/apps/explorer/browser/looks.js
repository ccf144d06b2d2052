// What a person would see at once to be wrong with the page as it stands: text that is cut or lies on other text, a panel
// with nothing in it, a figure without room, a page that scrolls sideways, no sentence. Called with whether the page may
// scroll downwards; answers sentences.
(scrolls) => {
  const found = [];
  const say = (what) => { if (!found.includes(what)) found.push(what); };
  const page = document.documentElement;
  if (page.scrollWidth > innerWidth) say(`the page is ${page.scrollWidth} wide in a window of ${innerWidth}`);
  if (!scrolls && page.scrollHeight > innerHeight) say(`the page is ${page.scrollHeight} high in a window of ${innerHeight}`);

  const one = (selector) => document.querySelector(selector);
  const words = (selector) => (one(selector) ? one(selector).textContent.trim() : "");
  const message = words("#main-message"), table = words("#table-holder"), drawn = one("#main-figure .js-plotly-plot .main-svg");
  if (!message && !table && !drawn) say("nothing is drawn, and nothing says why");
  if (!message && !words("#said")) say("no sentence");
  if (!words("#details")) say("the panel of the selection is empty");
  document.querySelectorAll("[data-thumb]").forEach((small) => {
    const box = small.getBoundingClientRect();
    const row = small.closest(".thumbs").getBoundingClientRect();
    const seen = box.width && row.height && box.left < row.right && box.right > row.left && box.bottom > 0 && box.top < innerHeight;
    if (seen && !small.textContent.trim() && !small.querySelector(".main-svg")) say(`the small ${small.dataset.thumb} is empty`);
  });

  const part = one("#part-shown");
  if (!message && !table && part.textContent && !part.checkVisibility({ checkVisibilityCSS: true })) say("what part is shown is not to be seen");

  // A figure has room for what it shows.
  document.querySelectorAll("#main-figure .js-plotly-plot, #details .js-plotly-plot").forEach((gd) => {
    const full = gd._fullLayout, holder = gd.closest("#details") ? "beside" : "large";
    if (!full || !gd.getClientRects().length || (holder === "large" && (message || table))) return;
    const plots = Object.values(full._plots || {});
    for (const plot of plots) {
      const [wide, high] = [plot.xaxis._length, plot.yaxis._length];
      const least = plots.length > 1 ? 25 : 60;
      if (wide < least || high < least) say(`the ${holder} figure has ${Math.round(wide)} x ${Math.round(high)} pixels for its data`);
    }
  });

  // Pieces of text with the part of them that is seen.
  const hides = (style) => [style.overflowX, style.overflowY].map((how) => how === "hidden" || how === "clip");
  const short = (text) => text.trim().replace(/\s+/g, " ").slice(0, 60);
  const placeOf = (node) => {
    const near = node.closest("[id]");
    const cls = node.getAttribute("class");
    return `${near && near.id ? "#" + String(near.id).slice(0, 40) : ""} ${node.tagName.toLowerCase()}${cls ? "." + String(cls).split(" ")[0] : ""}`;
  };
  const pieces = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const covered = message || table ? one("#main-figure") : null; // figures that lie under words or under a table
  while (walker.nextNode()) {
    const node = walker.currentNode, holder = node.parentElement;
    if (!node.textContent.trim() || !holder || !holder.checkVisibility({ checkOpacity: true, checkVisibilityCSS: true })) continue;
    if (holder.closest("script, style, noscript, .modebar, .hoverlayer, [hidden], .sr-only, option, textarea, .ag-root-wrapper, .mantine-ScrollArea-root")) continue;
    if (covered && holder.closest(".js-plotly-plot") && covered.contains(holder)) continue;
    const style = getComputedStyle(holder);
    if (style.visibility === "hidden" || Number(style.opacity) === 0) continue;
    const range = document.createRange();
    range.selectNodeContents(node);
    const svg = holder.closest("svg");
    const boxes = svg ? [(holder.closest("text") || holder).getBoundingClientRect()] : Array.from(range.getClientRects());
    for (const box of boxes) {
      if (box.width < 1 || box.height < 1) continue;
      let seen = { left: box.left, right: box.right, top: box.top, bottom: box.bottom }, reachable = false, cut = "";
      for (let up = svg && holder === svg ? svg : holder; up && up !== document.body; up = up.parentElement) {
        const how = getComputedStyle(up);
        if (how.position === "fixed") { const b = up.getBoundingClientRect(); if (b.width < 2) reachable = true; }
        const inner = up.tagName.toLowerCase() === "svg" || !(up instanceof SVGElement) ? up.getBoundingClientRect() : null;
        if (!inner) continue;
        const [x, y] = hides(how);
        const slack = 1.5;
        const scrollsX = how.overflowX === "auto" || how.overflowX === "scroll", scrollsY = how.overflowY === "auto" || how.overflowY === "scroll";
        if (scrollsX || scrollsY) {
          if (seen.right > inner.right || seen.left < inner.left || seen.bottom > inner.bottom || seen.top < inner.top) reachable = true;
        } else if (x || y) {
          const ellipsis = how.textOverflow === "ellipsis" && up.title;
          const over = (x && (seen.right > inner.right + slack || seen.left < inner.left - slack)) || (y && (seen.bottom > inner.bottom + 3 || seen.top < inner.top - 3));
          if (over && !reachable && !ellipsis) cut = cut || placeOf(up);
        }
        if (x || scrollsX) { seen.left = Math.max(seen.left, inner.left); seen.right = Math.min(seen.right, inner.right); }
        if (y || scrollsY) { seen.top = Math.max(seen.top, inner.top); seen.bottom = Math.min(seen.bottom, inner.bottom); }
      }
      if (cut) say(`cut: "${short(node.textContent)}" in ${cut}`);
      if (seen.right - seen.left < 2 || seen.bottom - seen.top < 2) continue;
      pieces.push({ node: holder, text: short(node.textContent), ...seen, svg, turned: svg && /rotate\((?!(-?90|0|-?180)[,)])/.test((holder.closest("text") || holder).getAttribute("transform") || "") });
    }
  }

  // Text on text: pieces whose boxes share more than a brush of each other, where neither is on a sheet of its own.
  const layer = (node) => node.closest(".mantine-Popover-dropdown, .mantine-Modal-root, dialog, .tour, .connection, .mantine-Menu-dropdown") || document.body;
  const cell = (node) => node.closest && node.closest(".heatmap-label, .textpoint, .slicetext, .bartext");
  pieces.sort((a, b) => a.left - b.left);
  for (let i = 0; i < pieces.length; i += 1) {
    const a = pieces[i];
    for (let j = i + 1; j < pieces.length && pieces[j].left < a.right - 2; j += 1) {
      const b = pieces[j];
      if (a.node === b.node || (a.svg && a.svg === b.svg && a.node.closest("text") === b.node.closest("text"))) continue;
      if (a.turned || b.turned || layer(a.node) !== layer(b.node)) continue;
      const wide = Math.min(a.right, b.right) - b.left, high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      const least = a.svg || b.svg ? 4 : 2;
      if (wide > 3 && high > least && !(cell(a.node) && cell(b.node))) say(`"${a.text}" lies on "${b.text}" (${placeOf(a.node)}; ${placeOf(b.node)})`);
    }
  }

  // What can be pressed is in sight, or can be scrolled to, and is as wide as its words.
  document.querySelectorAll("button, [role=tab], [role=button]").forEach((button) => {
    if (!button.getClientRects().length || button.closest(".modebar, .ag-root-wrapper, .mantine-ScrollArea-root")) return;
    if (button.scrollWidth > button.clientWidth + 1 && getComputedStyle(button).overflowX !== "visible" && !button.title) say(`cut: the button "${short(button.textContent)}"`);
  });
  return found;
}
