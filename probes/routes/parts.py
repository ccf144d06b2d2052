"""What flows through one part: the tokens it promotes and suppresses, and what it adds to the target's logit.

A part is an edge (query, key, head), a head, the whole attention, the MLP or a neuron of one layer at one position. Its
output x goes through the final norm with the scale that the norm has on this prompt at this position, kept fixed, and
through the unembedding: contributions in logits that add up, over all parts of all layers and what does not depend on
the prompt, to the logit itself (before a soft cap). Selecting one layer needs one pass and keeps that layer only.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from probes.routes.one_layer import check_inside, head_maps, head_needs, neurons, neurons_needs
from probes.routes.promoted import logit_contributions, promoted
from workbench.analysis.legacy import Entry, Param
from workbench.analysis.results import dataset
from workbench.errors import InputError
from workbench.models.hooks import (
    ATTN_OUT,
    MLP_OUT,
    MLP_POST,
    PATTERN,
    POST_ATTN_SCALE,
    POST_MLP_SCALE,
    RESID_POST,
    Hook,
    V,
)
from workbench.models.model import Model
from workbench.models.prompt import tokenise
from workbench.models.selfcheck import PARTS, RESIDUAL
from workbench.observation import Need, Observation, keep, observe

__all__ = ["ENTRY", "Part", "part_figure", "part_flow"]


@dataclass(frozen=True)
class Part:
    """A part of one layer at one position. With head: that head, with key too: that edge. With neuron: that neuron.

    With neither, sublayer says which: "attention" or "mlp".
    """

    layer: int
    pos: int
    head: int | None = None
    key: int | None = None
    neuron: int | None = None
    sublayer: str = "mlp"

    def __str__(self) -> str:
        if self.neuron is not None:
            return f"L{self.layer}N{self.neuron} at {self.pos}"
        if self.head is None:
            return f"L{self.layer} {self.sublayer} at {self.pos}"
        return f"L{self.layer}H{self.head} at {self.pos}" + ("" if self.key is None else f" from {self.key}")

    def check(self, model: Model, n_pos: int) -> None:
        """InputError where the model or the prompt has no such part."""
        sizes = model.sizes
        ranges = [("layer", self.layer, sizes.n_layers), ("pos", self.pos, n_pos), ("head", self.head, sizes.n_heads)]
        ranges += [("key", self.key, self.pos + 1), ("neuron", self.neuron, sizes.d_mlp)]
        check_inside(*((name, value, size) for name, value, size in ranges if value is not None))
        if self.key is not None and self.head is None:
            raise InputError(f"key={self.key} without a head", "the head of the edge", "Name the head too")


def _at(hook: Hook, layer: int) -> Need:
    return Need((hook,), keep, dims=hook.dims[1:], layers=(layer,))


def _hooks(model: Model, part: Part) -> tuple[Hook, ...]:
    normed = model.weights(part.layer)
    if part.neuron is not None:
        return (MLP_POST, *([POST_MLP_SCALE] if normed.post_mlp_gain is not None else []))
    if part.head is not None:
        return (PATTERN, V, *([POST_ATTN_SCALE] if normed.post_attn_gain is not None else []))
    return (ATTN_OUT if part.sublayer == "attention" else MLP_OUT,)


def _vector(seen: Observation, model: Model, part: Part) -> torch.Tensor:
    """What a part writes into the residual stream, `[d_model]`."""
    weights = model.weights(part.layer)
    taken = lambda hook: seen[_at(hook, part.layer)][0, 0]
    if part.neuron is not None:
        x = taken(MLP_POST)[part.pos, part.neuron] * weights.W_out[part.neuron].float()
        return x if weights.post_mlp_gain is None else x / taken(POST_MLP_SCALE)[part.pos] * weights.post_mlp_gain
    if part.head is None:
        return taken(_hooks(model, part)[0])[part.pos]
    keys = slice(None, part.pos + 1) if part.key is None else slice(part.key, part.key + 1)
    v = weights.repeated(taken(V), dim=1)[keys, part.head]
    x = taken(PATTERN)[part.head, part.pos, keys] @ v @ weights.W_O[part.head].float()
    return x if weights.post_attn_gain is None else x / taken(POST_ATTN_SCALE)[part.pos] * weights.post_attn_gain


def part_flow(
    model: Model,
    prompt,
    *,
    layer: int,
    pos: int = -1,
    head: int | None = None,
    key: int | None = None,
    neuron: int | None = None,
    sublayer: str = "mlp",
    target: str | None = None,
    **_,
) -> Iterator[xr.Dataset]:
    """What flows through one part; see `Part`. pos: negative from the end. target: default the model's prediction
    there.

    Yields one result. Over `rank`: `promoted_text`, `promoted_logit`, `suppressed_text`, `suppressed_logit`; scalars
    `target_logit` (what the part adds to it) and `norm`. For an MLP also its 20 strongest neurons over `neuron`, for a
    head its `pattern` and `share` over (query, key).
    """
    tokens = tokenise(model, prompt)
    part = Part(layer, pos + len(tokens) if pos < 0 else pos, head, key, neuron, sublayer)
    part.check(model, len(tokens))
    wanted = [_at(hook, layer) for hook in _hooks(model, part)]
    final = Need((RESID_POST,), keep, dims="pos d_model", layers=(model.sizes.n_layers - 1,))
    seen = observe(model, tokens, [*wanted, final], positions=[part.pos])
    state, x = seen[final][0, 0, part.pos], _vector(seen, model, part)
    logits = logit_contributions(model.readout, x, state)
    chosen = int(seen.logits[0][0].argmax()) if target is None else model.vocabulary.token(target)
    result = _flow_dataset(seen, model, logits, x, chosen)
    if head is not None:
        result = result.merge(_of_layer(model, tokens, head_needs, head_maps, layer=layer, head=head))
    elif neuron is None and sublayer == "mlp" and model.weights(layer).W_out is not None:
        result = result.merge(_of_layer(model, tokens, neurons_needs, neurons, layer=layer, pos=part.pos))
    name = model.vocabulary.string(chosen)
    first = result["promoted_text"].values[0]
    summary = f"{part} adds {float(logits[chosen]):+.2f} to the logit of {name!r} and promotes {str(first)!r} most."
    yield result.assign_attrs(part=str(part), target=name, summary=summary)


def _of_layer(model: Model, tokens, needs, analyse, *, layer: int, **params) -> xr.Dataset:
    """What a click on the page would show of one layer."""
    wanted = needs(model, tokens, layer=layer, **params)
    seen = observe(model, tokens, wanted, positions="none", stop=layer + 1)
    return analyse(seen, model.readout, layer=layer, **params)


def _flow_dataset(seen: Observation, model: Model, logits: torch.Tensor, x: torch.Tensor, target: int) -> xr.Dataset:
    up, down = promoted(logits)
    names = lambda ids: np.array([model.vocabulary.string(i) for i in ids.tolist()], dtype=object)
    return dataset(
        seen,
        promoted_text=("rank", names(up), "text", None, "promoted tokens"),
        promoted_logit=("rank", logits[up], "logits", None, "added to promoted tokens"),
        suppressed_text=("rank", names(down), "text", None, "suppressed tokens"),
        suppressed_logit=("rank", logits[down], "logits", None, "added to suppressed tokens"),
        target_logit=("", float(logits[target]), "logits", None, "added to the target"),
        norm=("", float(x.norm()), "residual stream", (0, None), "norm of the part"),
    )


def part_figure(result: xr.Dataset):
    """Tokens that the part promotes, with what it adds to their logits."""
    from workbench.figures import bars, show_token

    texts = [show_token(str(text), html=False) for text in result["promoted_text"].values]
    labels = [f"{rank + 1} {text}" for rank, text in enumerate(texts)]
    one = result[["promoted_logit"]]
    return bars(one, "promoted_logit", "rank", labels=labels, title=f"Promoted by {result.attrs['part']}")


ENTRY = Entry(
    name="flow-route-part",
    title="What flows through one part",
    source="arXiv 2404.07004; shares of neurons as in arXiv 2403.00824",
    definition=(
        "A part's output x through the final norm, its scale frozen at this position, and the unembedding: "
        "W_U (gain * x / scale), in logits. Neurons: share of activation * W_out[n] in resid_post, in one sum with the "
        "residual stream and the bias."
    ),
    limits=(
        "Direct effect only: what later layers make of the part is not seen. A part that promotes a token need not "
        "have been needed for it."
    ),
    scope="study",
    requires=(RESIDUAL, PARTS),
    study=part_flow,
    figures=(part_figure,),
    params=(
        Param("layer", int, 0, "layer of the part", low=0),
        Param("pos", int, -1, "position it writes to; negative from the end"),
        Param("head", int, None, "a head of attention", low=0, optional=True),
        Param("key", int, None, "with head: only what it moves from this position", low=0, optional=True),
        Param("neuron", int, None, "a neuron of the MLP", low=0, optional=True),
        Param("sublayer", str, "mlp", "without head and neuron: which one", choices=("attention", "mlp")),
        Param("target", str, None, "a token; default the model's prediction there", optional=True),
    ),
)
