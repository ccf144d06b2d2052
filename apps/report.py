"""What the command line prints and saves about models, analyses and results: plain text, and one HTML page.

Text from a prompt or a vocabulary may hold anything, so it is made visible before it reaches a terminal or a page.
"""

import html
import json
import textwrap
from typing import TYPE_CHECKING, Any

from workbench.analysis.legacy import named

if TYPE_CHECKING:
    from collections.abc import Mapping

    import xarray as xr

    from workbench.analysis.legacy import Entry, Param
    from workbench.models.model import Model

__all__ = ["description", "model_card", "page", "summary"]

_WIDTH = 100
_ROWS = 12  # of a table that is printed whole; longer ones are for the page and for files
_SCOPES = {
    "prompt": "needs a prompt",
    "model": "makes its own stimulus; needs no prompt",
    "study": "takes several passes",
}


def model_card(model: "Model") -> str:
    """Identity, sizes, badge and every self-check item with what was measured, its tolerance and its verdict."""
    identity, sizes = model.identity, model.sizes
    heads = f"{sizes.n_heads} heads ({sizes.n_key_value_heads} key/value) of {sizes.d_head}"
    widths = f"d_model {sizes.d_model}, d_mlp {sizes.d_mlp}, vocabulary {sizes.d_vocab:,}, n_ctx {sizes.n_ctx:,}"
    form = f"{identity.dtype} on {identity.device}, {identity.attention} attention, weights {identity.processing}"
    lines = [
        f"{model.name}: {identity.architecture}, {form}",
        f"  weights sha256  {identity.weights_hash[:16]}...",
        f"  sizes           {sizes.n_layers} layers, {heads}, {widths}",
    ]
    if identity.revision:
        lines.append(f"  revision        {identity.revision}")
    if identity.badge:
        lines.append(f"  badge           {identity.badge}")
    if model.selfcheck is None:
        return "\n".join([*lines, "Self-check: not run"])
    lines.append(f"Self-check {model.selfcheck.summary}:")
    for item in model.selfcheck.items:
        verdict = "pass" if item.passed else "FAIL"
        note = f"  ({item.note})" if item.note else ""
        lines.append(f"  {verdict}  {item.name:<52} {item.measured:8.2g}  tolerance {item.tolerance:.2g}{note}")
    return "\n".join(lines)


def description(entry: "Entry") -> str:
    """What an analysis computes, what must not be read out of it, and its parameters."""
    lines = [f"{entry.name}: {entry.title} ({_SCOPES[entry.scope]})"]
    for head, text in (("Computes", entry.definition), ("Limits", entry.limits), ("Source", entry.source)):
        if text:
            lines += textwrap.wrap(f"{head}: {text}", _WIDTH, subsequent_indent="  ")
    lines.append("Parameters (--param NAME=VALUE):" if entry.params else "Parameters: none")
    lines += [_param(param) for param in entry.params]
    if entry.display:
        lines.append("Of the figures alone (--param NAME=VALUE too):")
        lines += [_param(param) for param in entry.display]
    return "\n".join(lines)


def _param(param: "Param") -> str:
    if param.choices:
        span = f", one of {', '.join(map(str, param.choices))}"
        span += ", a file, a folder, or hub:NAME" if param.files else ""
    elif param.low is not None or param.high is not None:
        low, high = ("any" if bound is None else f"{bound:g}" for bound in (param.low, param.high))
        span = f", {low} to {high}"
    else:
        span = ""
    kind = param.type.__name__ + (" or none" if param.optional else "")
    default = str(param.default).lower() if isinstance(param.default, bool) else param.default
    return f"  {param.name}={default}  ({kind}{span})  {param.help}"


def summary(entry: "Entry", result: "xr.Dataset", display: "Mapping[str, Any] | None" = None) -> str:
    """A result in a screenful: its sentence, its model, and each variable with units, dims and where it is largest."""
    from workbench.figures import show_token

    record = json.loads(result.attrs.get("provenance", "{}"))
    model = record.get("model", {})
    badge = f" ({model['badge']})" if model.get("badge") else ""
    lines = [f"{entry.title} of {model.get('name', 'a model')}{badge}"]
    ids = record.get("token_ids")
    if "token_text" in result.coords:
        shown = " ".join(show_token(str(text), html=False) for text in result["token_text"].values[:40])
        lines.append(f"Tokens: {shown}" + (" ..." if result["token_text"].size > 40 else ""))
    elif ids:
        lines.append(f"Token ids: {len(ids)}")
    if said := entry.said(result, display):
        lines += textwrap.wrap(said, _WIDTH)
    for frame in (table(result) for table in entry.tables):
        if len(frame) <= _ROWS:
            lines.append(frame.to_string(float_format="{:.3g}".format, na_rep="-"))
    sizes = ", ".join(f"{dim} {size}" for dim, size in result.sizes.items())
    lines.append(f"Variables (sizes: {sizes}):" if sizes else "Variables:")
    width = max(map(len, result.data_vars), default=0)
    lines += [f"  {name:<{width}}  {_line(result[name])}" for name in map(str, result.data_vars)]
    return "\n".join(lines)


def _line(variable: "xr.DataArray") -> str:
    """`(layer, head) probability: 0.001 to 0.98, median 0.02, largest at L18H6`."""
    import numpy as np

    from workbench.figures import show_token
    from workbench.figures.text import number

    about = f"({', '.join(map(str, variable.dims))}) {variable.attrs['units']}: " if variable.dims else ""
    values = variable.values
    if values.dtype.kind not in "fiub":
        some = values[(-1,) * (values.ndim - 1)][:6] if values.ndim else [values.item()]
        return about + ("last: " if values.ndim > 1 else "") + " ".join(show_token(str(v), html=False) for v in some)
    if values.dtype.kind == "i" and variable.attrs["valid_min"] >= 0:
        values = np.where(values < 0, np.nan, values.astype(float))
    if not variable.dims:
        return f"{number(float(values))} {variable.attrs['units']}"
    known = np.isfinite(values.astype(float))
    if not known.any():
        return about + "not applicable"
    low, high = number(float(values[known].min())), number(float(values[known].max()))
    missing = f", {1 - known.mean():.0%} not applicable" if not known.all() else ""
    if "id" in variable.attrs["units"].split():
        return f"{about}{low} to {high}{missing}"
    at = np.unravel_index(int(np.argmax(np.where(known, values, -np.inf))), values.shape)
    median = number(float(np.median(values[known])))
    return f"{about}{low} to {high}, median {median}, largest at {_place(variable, at)}{missing}"


def _place(variable: "xr.DataArray", at: tuple[int, ...]) -> str:
    """`L18H6`, or `depth 30, pos 5`."""
    from workbench.figures import head_name

    where = {dim: variable[dim].values[i] for dim, i in zip(variable.dims, at, strict=True)}
    words = [head_name(where.pop("layer"), where.pop("head"))] if {"layer", "head"} <= set(where) else []
    return ", ".join(words + [f"{dim} {value}" for dim, value in where.items()])


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font-family: system-ui, sans-serif; max-width: 1200px; margin: 1rem auto; padding: 0 1rem }}
pre {{ white-space: pre-wrap; overflow-wrap: anywhere }}</style></head>
<body><h1>{title}</h1>
<p>{about}</p>
<p>{definition}</p>
<p><strong>Limits:</strong> {limits}</p>
{figures}
<details><summary>Numbers and provenance</summary><pre>{numbers}</pre><pre>{provenance}</pre></details>
</body></html>
"""


def page(entry: "Entry", result: "xr.Dataset", display: "Mapping[str, Any] | None" = None) -> str:
    """All figures of a result with model, definition, limits and provenance, as one HTML page that needs no network."""
    record = json.loads(result.attrs.get("provenance", "{}"))
    model = record.get("model", {})
    about = ", ".join(text for text in (model.get("name"), model.get("dtype"), model.get("badge")) if text)
    shown = entry.shown(display or {})
    drawn = [draw(result, **named(draw, shown)) for draw in entry.figures]
    return _PAGE.format(
        title=html.escape(entry.title),
        about=html.escape(about),
        definition=html.escape(entry.definition),
        limits=html.escape(entry.limits),
        figures="\n".join(_div(figure, first=i == 0) for i, figure in enumerate(f for f in drawn if f is not None)),
        numbers=html.escape(summary(entry, result, display)),
        provenance=html.escape(json.dumps(record, indent=1, ensure_ascii=False)),
    )


def _div(figure: Any, *, first: bool) -> str:
    """A figure as a piece of HTML; the first one brings the drawing library with it."""
    return figure.to_html(full_html=False, include_plotlyjs=first, config={"displaylogo": False})
