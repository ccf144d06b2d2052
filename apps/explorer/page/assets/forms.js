// Controls of a form: what somebody changes in them goes to the server; that they come, with the form, does not.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const forms = {}; // by kind of control, the view whose form is there
  let touched = {}; // what was changed in the form of parameters that is there, by name

  // What the selection names, for a field that picks: null where it names none.
  function named(pick) {
    const chosen = dash.spine.state.selection, has = (name) => Number.isInteger(chosen[name]);
    const units = () => {
      if (!has("layer")) return null;
      return "L" + chosen.layer + (has("neuron") ? "N" + chosen.neuron : has("head") ? "H" + chosen.head : " mlp");
    };
    // The prompt that is compared, where it has as many tokens.
    const pair = () => {
      const count = (strip) => document.querySelectorAll(strip + " [data-pos]").length, other = document.getElementById("other");
      return other && other.value && count("#tokens-b") && count("#tokens-b") === count("#tokens") ? other.value : null;
    };
    const found = { units: units, pair: pair, layer: () => chosen.layer, head: () => chosen.head, pos: () => chosen.pos, segment: () => chosen.pos };
    const value = found[pick] ? found[pick]() : null;
    return value === undefined || value === null ? null : value;
  }

  function offer() {
    document.querySelectorAll("#params-form [data-take]").forEach((button) => {
      const value = named(button.dataset.take);
      const words = value === null ? "" : button.dataset.take === "pair" ? "take the compared prompt" : "take " + (["pos", "segment"].includes(button.dataset.take) ? "token " : "") + value;
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
      if (is_new || fired.length > 1) {
        if (id.type === "param") touched = {};
        return dash.no_update;
      }
      const given = fired[0].value === undefined ? null : fired[0].value;
      const value = Array.isArray(given) ? given.join(",") : given; // tokens that were picked
      if (id.type !== "param") return Object.assign({}, id, { value: value });
      const also = Object.assign({}, touched);
      touched[id.name] = value;
      return Object.assign({}, id, { value: value, also: also });
    },
    // The form that the page comes with.
    begin: function (params, displays) {
      for (const id of params.concat(displays)) forms[id.type] = id.entry;
      return dash.no_update;
    },
  };
})();
