// How a page stands, for whoever reads of a test that waited in vain: what it shows, what its stores hold, and which
// callbacks Dash has under way or holds back.
() => {
  const text = (query) => (document.querySelector(query) || { textContent: "" }).textContent.slice(0, 200);
  const figure = document.querySelector("#main-figure");
  const found = {
    address: decodeURIComponent(window.location.hash).slice(0, 600),
    open: text("#tabs [aria-selected=true]"),
    title: text("#params-title"),
    figure: figure && [figure.className, figure.dataset.stands],
    message: text("#main-message"),
    said: text("#said"),
    jobs: text("#jobs"),
    notices: text("#notice-list"),
  };
  // The store of Dash's renderer, which it gives to nobody: a property of one of the first elements of React's tree.
  const root = document.getElementById("react-entry-point");
  const held = Object.keys(root || {}).find((name) => name.startsWith("__reactContainer"));
  let state = null;
  for (let fiber = held && root[held], depth = 0; fiber && depth < 50 && !state; fiber = fiber.child, depth += 1) {
    const store = (fiber.memoizedProps || {}).store;
    state = store && store.getState ? store.getState() : null;
  }
  if (!state) return found;
  const stores = ["view", "drawn", "done", "asked", "idle", "woken", "link"].map((id) => [id, "data"]);
  const props = stores.concat([["tabs", "value"], ["view-list", "value"], ["poll", "disabled"], ["poll", "interval"], ["poll", "n_intervals"]]);
  found.props = {};
  for (const [id, name] of props) {
    const path = state.paths.strs[id];
    const at = path && path.reduce((node, key) => node && node[key], state.layout);
    found.props[id + "." + name] = at ? String(JSON.stringify(at.props[name])).slice(0, 300) : "not there";
  }
  found.callbacks = {};
  for (const [kind, some] of Object.entries(state.callbacks)) {
    found.callbacks[kind] = Array.isArray(some) ? some.map((one) => one.callback && String(one.callback.output).slice(0, 200)) : some;
  }
  return found;
}
