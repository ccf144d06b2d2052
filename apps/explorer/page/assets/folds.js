// Where a selection has more to say than two figures, each stands behind its title; the last two that were opened stay
// open, also when the next selection brings new ones.
(function () {
  "use strict";
  const OPEN = 2;
  let order = null; // names of what is open, oldest first; null until somebody chose

  const folds = () => Array.from(document.querySelectorAll("#details details[data-fold]"));

  function apply() {
    const all = folds();
    if (!all.length || order === null) return;
    const known = order.filter((name) => all.some((fold) => fold.dataset.fold === name));
    if (known.length) all.forEach((fold) => { fold.open = known.includes(fold.dataset.fold); });
  }

  document.addEventListener("click", (event) => {
    const summary = event.target.closest && event.target.closest("#details details[data-fold] > summary");
    if (!summary) return;
    const fold = summary.parentElement;
    const open = folds().filter((one) => one.open).map((one) => one.dataset.fold);
    const kept = (order || open).filter((name) => open.includes(name) && name !== fold.dataset.fold);
    order = fold.open ? kept : [...kept, fold.dataset.fold].slice(-OPEN);
    setTimeout(apply, 0); // behind the browser's own opening or closing
  });

  new MutationObserver(apply).observe(document.documentElement, { childList: true, subtree: true });
})();
