"""A browser without a browser: it holds what the page's components hold, and calls the server as Dash's renderer does.

Honest requests come from it; it runs no script, so that what the scripts write a test writes itself (`put`).
"""

import json
from collections.abc import Iterator
from typing import Any

from flask.testing import FlaskClient

WILD = (["ALL"], ["MATCH"])


def key_of(identity: Any) -> str:
    """An id as Dash writes it."""
    return identity if isinstance(identity, str) else json.dumps(identity, sort_keys=True, separators=(",", ":"))


class TinyBrowser:
    """One window of the page behind a Flask test client."""

    def __init__(self, client: FlaskClient, base: str = "/"):
        self.client, self.base = client, base
        self.props: dict[str, dict[str, Any]] = {}
        self.ids: dict[str, Any] = {}
        self.calls: list[dict[str, Any]] = []  # every body that was sent
        self.pressable: dict[str, list[str]] = {}  # every button that was there, by its `data-` attribute
        self._take_in(client.get(f"{base}_dash-layout").json)
        self.callbacks = [c for c in client.get(f"{base}_dash-dependencies").json if not c["clientside_function"]]

    def _take_in(self, part: Any) -> None:
        """Every component in a layout."""
        if isinstance(part, list):
            for one in part:
                self._take_in(one)
        elif isinstance(part, dict) and "props" in part:
            props = part["props"]
            for name in props:
                if name.startswith("data-") and isinstance(props[name], str) and props[name]:
                    self.pressable.setdefault(name, []).append(props[name])
            if "id" in props:
                self.ids[key_of(props["id"])] = props["id"]
                self.props[key_of(props["id"])] = props
            for one in props.values():
                self._take_in(one)

    def buttons(self, kind: str) -> list[str]:
        """What the buttons of a kind say: a script writes it into a store when one is pressed."""
        return self.pressable.get(f"data-{kind}", [])

    def get(self, identity: Any, prop: str = "data") -> Any:
        """What a component holds."""
        return self.props[key_of(identity)].get(prop)

    def put(self, identity: Any, value: Any, prop: str = "data") -> None:
        """What a user or a script sets; call `fire` for what follows."""
        self.props.setdefault(key_of(identity), {"id": identity})[prop] = value
        self.ids.setdefault(key_of(identity), identity)

    def _matching(self, spec: dict[str, Any], bound: dict[str, Any] | None) -> Any:
        if not spec["id"].startswith("{"):
            return self._place(spec["id"], spec["property"])
        pattern = json.loads(spec["id"])
        wanted = {k: v for k, v in pattern.items() if v not in WILD} | (bound or {})
        found = [
            self._place(i, spec["property"])
            for i in self.ids.values()
            if isinstance(i, dict) and set(i) == set(pattern) and all(i[k] == v for k, v in wanted.items())
        ]
        return found if ["ALL"] in pattern.values() else found[0]

    def _place(self, identity: Any, prop: str) -> dict[str, Any]:
        place = {"id": identity, "property": prop}
        held = self.props.get(key_of(identity), {})
        return place | ({"value": held[prop]} if prop in held else {})

    def body(self, callback: dict[str, Any], changed: list[str], bound: dict[str, Any] | None = None) -> dict[str, Any]:
        """The request that calls a callback. bound: what MATCH stands for."""
        names = callback["output"][2:-2].split("...") if callback["output"].startswith("..") else [callback["output"]]
        outputs = []
        for name in names:
            identity, _, prop = name.rpartition(".")
            spec = {"id": identity.replace("\\.", "."), "property": prop.partition("@")[0]}
            place = self._matching(spec, bound)
            many = place if isinstance(place, list) else [place]
            many = [{"id": one["id"], "property": one["property"]} for one in many]
            outputs.append(many if isinstance(place, list) else many[0])
        given = {
            "output": callback["output"],
            "outputs": outputs if callback["output"].startswith("..") else outputs[0],
            "inputs": [self._matching(spec, bound) for spec in callback["inputs"]],
            "changedPropIds": changed,
        }
        return given | (
            {"state": [self._matching(spec, bound) for spec in callback["state"]]} if callback["state"] else {}
        )

    def send(self, given: Any) -> Any:
        """A request, its answer."""
        return self.client.post(f"{self.base}_dash-update-component", json=given)

    def bodies(self, identity: Any, prop: str = "data") -> Iterator[dict[str, Any]]:
        """The requests that follow a change of a component."""
        name = f"{key_of(identity)}.{prop}"
        for callback in self.callbacks:
            for spec in callback["inputs"]:
                pattern = json.loads(spec["id"]) if spec["id"].startswith("{") else None
                if pattern is None and spec["id"] == identity and spec["property"] == prop:
                    yield self.body(callback, [name])
                elif pattern is not None and isinstance(identity, dict) and spec["property"] == prop:
                    fixed = {k: v for k, v in pattern.items() if v not in WILD}
                    if set(pattern) == set(identity) and all(identity[k] == v for k, v in fixed.items()):
                        match = {k: identity[k] for k, v in pattern.items() if v == ["MATCH"]}
                        yield self.body(callback, [name], match or None)

    def fire(self, identity: Any, prop: str = "data") -> dict[str, Any]:
        """Do what follows a change, and take in the answers; what they wrote, by `id.property`."""
        wrote: dict[str, Any] = {}
        for given in list(self.bodies(identity, prop)):
            self.calls.append(given)
            answer = self.send(given)
            assert answer.status_code in (200, 204), (answer.status_code, answer.text, given["output"])
            found = answer.json if answer.status_code == 200 else {}
            for part in (found.get("response", {}), found.get("sideUpdate", {})):
                for name, props in part.items():
                    self.props.setdefault(name, {}).update(props)
                    wrote |= {f"{name}.{one}": value for one, value in props.items()}
                    for value in props.values():
                        self._take_in(value)
        return wrote
