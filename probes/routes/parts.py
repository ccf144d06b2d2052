"""What flows through one part of the model: tokens it promotes and suppresses, what it adds to the target's logit."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import torch
import xarray as xr

from probes.routes.one_layer import FlowRouteHead, FlowRouteNeurons, check_inside, neuron_outputs
from probes.routes.promoted import logit_contributions, promoted
from workbench.analysis.kinds import OnPrompt, Study
from workbench.analysis.parameters import Choice, Position, Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.errors import InputError
from workbench.intervene.arriving import arriving, arriving_of_neurons
from workbench.models.hooks import (
    ATTN_OUT,
    ATTN_RESULT,
    MLP_OUT,
    MLP_POST,
    PATTERN,
    POST_ATTN_SCALE,
    POST_MLP_SCALE,
    RESID_POST,
    Hook,
    V,
    Z,
)
from workbench.models.model import Model, Sizes
from workbench.models.neurons import need_neurons, unlike_W_out
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PARTS, READOUT, RESIDUAL
from workbench.models.target import likelier, need_one_token
from workbench.observation import Need, Observation, keep, observe
from workbench.words import change

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["VIEW", "FlowRoutePart", "part_figure"]


class FlowRoutePart(
    Study, name="flow-route-part", title="What flows through one part", requires=(READOUT, RESIDUAL, PARTS)
):
    """The tokens that one part promotes and suppresses, and what it adds to the target's logit.

    A part is an edge (query, key, head), a head, the whole attention, the MLP or a neuron of one layer at one position.
    Its output x goes through the final norm with the scale that the norm has on this prompt at this position, kept
    fixed, and through the unembedding: contributions in logits that add up, over all parts of all layers and what does
    not depend on the prompt, to the logit itself (before a soft cap). Selecting one layer needs one pass and keeps that
    layer only.

    Definition: A part's output x through the final norm, its scale frozen at this position, and the unembedding: W_U
    (gain * x / scale), in logits. Neurons: share of activation * W_out[n] in resid_post, in one sum with the residual
    stream and the bias. Under interventions x is what then arrives behind the layer: of a head what it writes instead
    (of an edge nothing, since that comes from no key), times what is multiplied behind it, and nothing of what is set.

    Limits: Direct effect only: what later layers make of the part is not seen. A part that promotes a token need not
    have been needed for it.

    Source: arXiv 2404.07004; shares of neurons as in arXiv 2403.00824

    Returns: one result. Over `rank`: `promoted_text`, `promoted_logit`, `suppressed_text`, `suppressed_logit`; scalars
    `target_logit` (what the part adds to it) and `norm`. For an MLP also its 20 strongest neurons over `neuron`, for a
    head its `pattern` and `share` over (query, key).
    """

    layer: Annotated[int, Range(0), "layer of the part"] = 0
    pos: Annotated[int, Position(), "position it writes to; negative from the end"] = -1
    head: Annotated[int | None, Range(0), "a head of attention"] = None
    key: Annotated[int | None, Range(0), Position(), "with head: only what it moves from this position"] = None
    neuron: Annotated[int | None, Range(0), "a neuron of the MLP"] = None
    sublayer: Annotated[str, Choice(("attention", "mlp")), "without head and neuron: which one"] = "mlp"
    target: Annotated[str | None, "a token; default the model's prediction there"] = None

    def idle(self) -> dict[str, str]:
        """A neuron is of the MLP."""
        return {} if self.neuron is None else {"sublayer": "a part that is no neuron"}

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """A pass, and another up to the part."""
        return 2.0

    def partials(
        self, model: Model, tokens: Tokens, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """Its one result."""
        part = self.replaced(pos=tokens.place(self.pos))
        _check(part, model)
        wanted = [_at(hook, part.layer) for hook in _hooks(model, part)]
        final = Need((RESID_POST,), keep, dims="pos d_model", layers=(model.sizes.n_layers - 1,))
        seen = observe(model, tokens, [*wanted, final], positions=[part.pos])
        state, x = seen[final][0, 0, part.pos], _vector(seen, model, part)
        logits = logit_contributions(model.readout, x, state)
        chosen = (
            int(seen.logits[0][0].argmax())
            if self.target is None
            else need_one_token(model.vocabulary, self.target, "what a part adds to a logit")
        )
        result = _flow_dataset(seen, model, logits, x, chosen)
        if self.head is not None:
            result = result.merge(_of_layer(model, tokens, FlowRouteHead(layer=self.layer, head=self.head)))
        elif self.neuron is None and self.sublayer == "mlp" and _shows_neurons(model, self.layer):
            result = result.merge(_of_layer(model, tokens, FlowRouteNeurons(layer=self.layer, pos=part.pos)))
        name, label = model.vocabulary.string(chosen), _label(part)
        first = result["promoted_text"].values[0]
        capped = ", before the soft cap," if model.readout.soft_cap else ""
        summary = (
            f"{label} adds {change(float(logits[chosen]))} to the logit of {name!r}{capped} and promotes "
            f"{str(first)!r} most."
            if x.any()
            else f"{label} adds nothing to any logit: it writes nothing there."
        )
        log_probs = seen.logits[0][0].float().log_softmax(-1)
        note = likelier(model.vocabulary, self.target, log_probs) if self.target else ""
        yield result.assign_attrs(part=label, target=name, summary=" ".join(filter(None, (summary, note))))


def _label(part: FlowRoutePart) -> str:
    if part.neuron is not None:
        return f"L{part.layer}N{part.neuron} at {part.pos}"
    if part.head is None:
        return f"L{part.layer} {part.sublayer} at {part.pos}"
    return f"L{part.layer}H{part.head} at {part.pos}" + ("" if part.key is None else f" from {part.key}")


def _shows_neurons(model: Model, layer: int) -> bool:
    return model.weights(layer).W_out is not None and not unlike_W_out(model)


def _check(part: FlowRoutePart, model: Model) -> None:
    """InputError where the model has no such part, or its position sees no such key; RefusedError as `need_neurons`."""
    sizes = model.sizes
    ranges = [
        ("layer", part.layer, sizes.n_layers),
        ("head", part.head, sizes.n_heads),
        ("key", part.key, part.pos + 1),
    ]
    check_inside(*((name, value, size) for name, value, size in ranges if value is not None))
    if part.neuron is not None:
        check_inside(("neuron", part.neuron, model.n_neurons(part.layer)))
        need_neurons(model)
    if part.key is not None and part.head is None:
        raise InputError(f"key={part.key} without a head", "the head of the edge", "Name the head too")


def _at(hook: Hook, layer: int) -> Need:
    return Need((hook,), keep, dims=hook.dims[1:], layers=(layer,))


def _hooks(model: Model, part: FlowRoutePart) -> tuple[Hook, ...]:
    weights = model.weights(part.layer)
    if part.neuron is not None:
        return (MLP_POST, *([POST_MLP_SCALE] if weights.post_mlp_gain is not None else []))
    if part.head is not None:
        return (PATTERN, V, Z, *([POST_ATTN_SCALE] if weights.post_attn_gain is not None else []))
    return (ATTN_OUT if part.sublayer == "attention" else MLP_OUT,)


def _vector(seen: Observation, model: Model, part: FlowRoutePart) -> torch.Tensor:
    """What a part writes into the residual stream, `[d_model]`, as far as interventions let it arrive."""
    weights, edits = model.weights(part.layer), (model, seen.interventions, part.layer, len(seen.tokens[0]))
    taken: Any = lambda hook: seen[_at(hook, part.layer)][0, 0]
    if part.neuron is not None:
        scale = None if weights.post_mlp_gain is None else taken(POST_MLP_SCALE)[part.pos]
        x = neuron_outputs(taken(MLP_POST)[part.pos], weights, scale, part.neuron)
        return x * arriving_of_neurons(*edits)[part.pos].to(x)
    if part.head is None:
        x = taken(_hooks(model, part)[0])[part.pos]
        return x * arriving_of_neurons(*edits, (RESID_POST,))[part.pos].to(x)
    behind: tuple[Hook, ...] = (ATTN_RESULT, ATTN_OUT, RESID_POST)
    if part.key is None and model.interventions:
        z = taken(Z)[part.pos, part.head]
    else:
        keys = slice(None, part.pos + 1) if part.key is None else slice(part.key, part.key + 1)
        z = taken(PATTERN)[part.head, part.pos, keys] @ weights.repeated(taken(V), dim=1)[keys, part.head]
        behind = (Z, *behind)
    x = z @ weights.W_O[part.head].float()
    x = x * arriving(*edits, behind)[0][part.head, part.pos].to(x)
    return x if weights.post_attn_gain is None else x / taken(POST_ATTN_SCALE)[part.pos] * weights.post_attn_gain


def _of_layer(model: Model, tokens: Tokens, analysis: OnPrompt) -> xr.Dataset:
    """What a click on the page would show of one layer."""
    needs = analysis.needs(model, tokens)
    assert needs[0].layers is not None, "an analysis of one layer"
    (layer,) = needs[0].layers
    return analysis.analyse(observe(model, tokens, needs, positions="none", stop=layer + 1))


def _flow_dataset(seen: Observation, model: Model, logits: torch.Tensor, x: torch.Tensor, target: int) -> xr.Dataset:
    up, down = promoted(logits)
    # nothing promotes nothing: of equal logits the order is chance
    names = lambda ids: np.array([model.vocabulary.string(i) if x.any() else "" for i in ids.tolist()], dtype=object)
    return dataset(
        seen,
        promoted_text=("rank", names(up), "text", None, "promoted tokens"),
        promoted_logit=("rank", logits[up], "logits", None, "added to promoted tokens"),
        suppressed_text=("rank", names(down), "text", None, "suppressed tokens"),
        suppressed_logit=("rank", logits[down], "logits", None, "added to suppressed tokens"),
        target_logit=("", float(logits[target]), "logits", None, "added to the target"),
        norm=("", float(x.norm()), "residual stream", (0, None), "norm of the part"),
    )


def part_figure(result: xr.Dataset) -> "go.Figure":
    """Tokens that the part promotes, with what it adds to their logits."""
    from workbench.figures import bars, show_token

    texts = [show_token(str(text), html=False) for text in result["promoted_text"].values]
    labels = [f"{rank + 1} {text}" for rank, text in enumerate(texts)]
    one = result[["promoted_logit"]]
    return bars(one, "promoted_logit", "rank", labels=labels, title=f"Promoted by {result.attrs['part']}")


VIEW = View(
    FlowRoutePart,
    question="Which tokens does this part promote, and what does it add to the prediction?",
    asks=(
        Ask("layer", "Read out what flows through layer", pick="layer"),
        Ask("head", "head", pick="head", empty="none"),
        Ask("pos", "to", pick="pos", empty="the last token"),
    ),
    figures=(part_figure,),
)
