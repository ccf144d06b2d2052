"""Claims: what views say of a selection, put so that `causal-check` can test it. Each is None where nothing is said.

What a claim measures, always named in its params:

    a view that explains a prediction            what that view was asked about: its metric and tokens
    an induction score                           log-probability of what came next the last time a token occurred
    a sink                                       KL from the prediction as it is: a sink is about no token
    any other view of heads, edges or neurons    log-probability of the model's top token

The prediction is the one at the selected token, by default the last.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from workbench.analysis.view import Claim, chosen
from workbench.figures import head_name
from workbench.models.target import behind
from workbench.storage.record import record_of

__all__ = ["asked", "block", "check_of", "edge", "head", "head_or_state", "last_as_end", "repetition", "sink", "state"]


def check_of(units: str, title: str = "", *, pos: int = -1, **params: Any) -> Claim:
    """The claim that removing units changes the log-probability of the top token, or what params ask, at a position.

    title: of the button, by default the units.
    """
    return Claim(f"Check {title or units}", {"units": units, "metric": "log-probability", "pos": pos, **params})


def asked(result: xr.Dataset, selection: Mapping[str, Any]) -> dict[str, Any]:
    """What a result was asked about, as params of the check: its metric and tokens, by their ids, at the last position,
    where studies measure; of a result without a metric, the prediction at the selected token."""
    params = record_of(result)["params"]
    if "metric" not in params:
        return {"pos": _prediction(result, selection)}
    tokens = {name: result.attrs.get(f"{name}_ids", params.get(name)) for name in ("target", "against")}
    return {"metric": params["metric"]} | {name: token for name, token in tokens.items() if token}


def _is_of_prompt(result: xr.Dataset, pos: int) -> bool:
    """Whether a check of the prompt has the position: a target of several tokens lengthens the run that is recorded."""
    tokens = record_of(result)["token_ids"]
    return tokens is None or pos < len(tokens) - behind(result.attrs)


def _prediction(result: xr.Dataset, selection: Mapping[str, Any]) -> int:
    """The selected token, a query before a position; the last one where none is selected, or none of the prompt."""
    for name in ("query", "pos"):
        at = chosen(result, selection, name)
        if at is not None and _is_of_prompt(result, at[0]):
            return last_as_end(result, at[0])
    return -1


def last_as_end(result: xr.Dataset, pos: int) -> int:
    """A position of the prompt, its last one as -1: the study's form keeps what it was filled with, and in the next
    prompt that is its last token."""
    tokens = record_of(result)["token_ids"]
    return -1 if tokens is not None and pos == len(tokens) - 1 else pos


def head(result: xr.Dataset, selection: dict[str, Any]) -> Claim | None:
    """The selected head changes the prediction that the view is about."""
    at = chosen(result, selection, "layer", "head")
    return None if at is None else check_of(head_name(*at), **asked(result, selection))


def repetition(result: xr.Dataset, selection: dict[str, Any]) -> Claim | None:
    """The selected head makes the model repeat what came next the last time: without it, that is less likely.

    On the prompt that the scores are of; where they are of a stimulus, on other repeated random tokens.
    """
    at = chosen(result, selection, "layer", "head")
    if at is None:
        return None
    on = "prompt" if "n_repeats" in result else "repeated tokens"
    if on == "prompt" and not int(result["n_repeats"]):
        return None
    name = head_name(*at)
    title = f"{name} on {'the repeated tokens' if on == 'prompt' else 'random tokens that repeat'}"
    return check_of(name, title, metric="repetition", side="lowers", on=on)


def sink(result: xr.Dataset, selection: Mapping[str, Any], key: int) -> Claim:
    """A key serves the selected head as a sink: where it is hidden from that head, the prediction becomes another."""
    pos = _prediction(result, selection)
    unit = f"{head_name(selection['layer'], selection['head'])} key {key}"
    return check_of(unit, metric="KL", side="raises", pos=pos if pos > key else -1)


def edge(result: xr.Dataset, selection: dict[str, Any]) -> Claim | None:
    """What the selected head moves from the selected key to the query changes the prediction there."""
    at = chosen(result, selection, "layer", "head", "query", "key")
    if at is None or at[3] > at[2]:  # which no query sees
        return None
    return check_of(f"{head_name(*at[:2])}:{at[2]}<-{at[3]}", **asked(result, selection))


def state(result: xr.Dataset, selection: dict[str, Any]) -> Claim | None:
    """What stands at the selected depth and position enters the prediction at the last one: that at its own position it
    enters in any case. Position 0 has no mean, the last depth is read by nothing, and the tokens of a target of several
    stand behind the prompt: a check counts none of them."""
    at = chosen(result, selection, "depth", "pos")
    if at is None or at[1] < 1 or not _is_of_prompt(result, at[1]):
        return None
    if "depth" in result.coords and at[0] >= np.max(result["depth"].values):
        return None
    return check_of(f"L{at[0]} pos {at[1]}", method="mean", **asked(result, {}))


def block(result: xr.Dataset, selection: dict[str, Any], kind: str) -> Claim | None:
    """The selected layer's `mlp` or `attention` changes the prediction."""
    at = chosen(result, selection, "layer")
    return None if at is None else check_of(f"L{at[0]} {kind}", **asked(result, selection))


def head_or_state(result: xr.Dataset, selection: dict[str, Any], site: str) -> Claim | None:
    """What a patched site is about: a head, a block, or the residual stream at a position."""
    if site in ("z", "pattern"):
        return head(result, selection)
    if site in ("mlp_out", "attn_out"):
        return block(result, selection, "mlp" if site == "mlp_out" else "attention")
    at = chosen(result, selection, "layer", "pos")
    if at is None or site == "v":
        return None
    depth = at[0] + (site == "resid_post")
    if depth > int(np.max(result["layer"].values)):
        return None  # behind the last block, which nothing reads
    return state(result, {**selection, "depth": depth})
