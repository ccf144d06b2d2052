// Controls of a form: what somebody changes in them goes to the server; that they come, with the form, does not.
(function () {
  "use strict";
  const dash = (window.dash_clientside = window.dash_clientside || {});
  const forms = {}; // by kind of control, the view whose form is there

  dash.forms = {
    // One function for both kinds: the only control that was changed, with its value.
    changed: function () {
      const fired = dash.callback_context.triggered || [];
      if (!fired.length) return dash.no_update;
      const read = (one) => JSON.parse(one.prop_id.slice(0, one.prop_id.lastIndexOf(".")));
      const id = read(fired[0]);
      const is_new = forms[id.type] !== id.entry;
      forms[id.type] = id.entry;
      if (is_new || fired.length > 1) return dash.no_update;
      return Object.assign({}, id, { value: fired[0].value === undefined ? null : fired[0].value });
    },
    // The form that the page comes with.
    begin: function (params, displays) {
      for (const id of params.concat(displays)) forms[id.type] = id.entry;
      return dash.no_update;
    },
  };
})();
