// Controls of a form: what somebody changes in them goes to the server; that they come, with the form, does not.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const forms = {}; // by kind of control, the view whose form is there

  // What the selection names, for a field that picks: null where it names none.
  function named(pick) {
    const chosen = dash.spine.state.selection, has = (name) => Number.isInteger(chosen[name]);
    const units = () => {
      if (!has("layer")) return null;
      return "L" + chosen.layer + (has("neuron") ? "N" + chosen.neuron : has("head") ? "H" + chosen.head : " mlp");
    };
    const found = { units: units, layer: () => chosen.layer, head: () => chosen.head, pos: () => chosen.pos, segment: () => chosen.pos };
    const value = found[pick] ? found[pick]() : null;
    return value === undefined || value === null ? null : value;
  }

  function offer() {
    document.querySelectorAll("#params-form [data-take]").forEach((button) => {
      const value = named(button.dataset.take);
      const words = value === null ? "" : "take " + (["pos", "segment"].includes(button.dataset.take) ? "token " : "") + value;
      if (button.textContent !== words) button.textContent = words;
      button.hidden = value === null;
    });
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest && event.target.closest("[data-take]");
    if (!button) return;
    const value = named(button.dataset.take), pick = button.dataset.take;
    const id = { type: "param", entry: button.dataset.entry, name: button.dataset.name };
    dash.set_props(id, { value: pick === "segment" ? [String(value)] : pick === "pos" ? String(value) : value });
  });

  dash.forms = {
    offer: offer,
    // One function for both kinds: the only control that was changed, with its value.
    changed: function () {
      const fired = dash.callback_context.triggered || [];
      if (!fired.length) return dash.no_update;
      const read = (one) => JSON.parse(one.prop_id.slice(0, one.prop_id.lastIndexOf(".")));
      const id = read(fired[0]);
      const is_new = forms[id.type] !== id.entry;
      forms[id.type] = id.entry;
      if (is_new || fired.length > 1) return dash.no_update;
      const value = fired[0].value === undefined ? null : fired[0].value;
      return Object.assign({}, id, { value: Array.isArray(value) ? value.join(",") : value }); // tokens that were picked
    },
    // The form that the page comes with.
    begin: function (params, displays) {
      for (const id of params.concat(displays)) forms[id.type] = id.entry;
      return dash.no_update;
    },
  };
})();
