"""What the parts of a circuit do: where a head looks, what it writes, and which label it earns with which null.

All of it is read off at the position where replacing the part is estimated to move the answer most on the shown pair.
Labels: those of `induction-heads`, and "copies" or "suppresses", which are about the tokens that a head looks at.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from probes.attention.induction.induction_heads import FALSE_DISCOVERY, InductionHeads
from probes.circuits.graph.tasks import Pair
from probes.routes.promoted import logit_contributions, promoted
from workbench.errors import RefusedError
from workbench.figures import head_name
from workbench.intervene.arriving import arriving
from workbench.models.hooks import ATTN_OUT, ATTN_RESULT, MLP_OUT, PATTERN, POST_ATTN_SCALE, RESID_POST, Hook, Z
from workbench.models.model import Model
from workbench.observation.recording import Recording, record_all
from workbench.statistics import benjamini_hochberg, sign_flip_test

__all__ = ["Part", "copying_labels", "described_parts", "induction_labels", "node_of"]

_WRITTEN = 3  # tokens that are named
_SHORTEST = 48  # tokens of a sequence that repeats: half of what induction-heads takes by itself


@dataclass(frozen=True)
class Part:
    """One head or MLP of a circuit, on the shown pair.

    layer, head: head is -1 for an MLP. pos: where it is read off. looks_at, weight: the key that the head gives most
    attention there, and how much; -1 and NaN for an MLP. raises, lowers: tokens that its output there raises and lowers
    most, clean minus counterfactual, read through the final norm. direct: what that adds to the metric by itself,
    logits. labels: with their q.
    """

    layer: int
    head: int
    pos: int
    looks_at: int
    weight: float
    raises: tuple[str, ...]
    lowers: tuple[str, ...]
    direct: float
    labels: tuple[str, ...]

    @property
    def name(self) -> str:
        """L18H6, or `L20 MLP`."""
        return head_name(self.layer, self.head) if self.head >= 0 else f"L{self.layer} MLP"


def node_of(name: str) -> tuple[int, int]:
    """Layer and head of a node of the graph, such as `a3.h1`; head -1 for an MLP, `m3`."""
    if name.startswith("m"):
        return int(name[1:]), -1
    layer, head = name[1:].split(".h")
    return int(layer), int(head)


def described_parts(
    model: Model,
    nodes: Sequence[tuple[int, int]],
    shown: Pair,
    estimates: dict[str, np.ndarray],
    pairs: Sequence[Pair],
    labels: dict[tuple[int, int], tuple[str, ...]],
) -> list[Part]:
    """What these nodes do. estimates: of the shown pair, `z` [layer, pos, head] and `mlp_out` [layer, pos]. pairs: on
    whose clean prompts copying is tested. labels: of `induction_labels`."""
    hooks = [*_read(model), *([MLP_OUT] if model.sizes.d_mlp else [])]
    clean, corrupt = record_all(model, [shown.clean, shown.corrupt], hooks)
    at_the_end = [node for node in nodes if node[1] >= 0 and _at(node, estimates) == len(shown.clean) - 1]
    copying = copying_labels(model, at_the_end, pairs)
    return [_part(model, node, shown, estimates, (clean, corrupt), (*labels.get(node, ()), *copying.get(node, ())))
            for node in nodes]  # fmt: skip


def _read(model: Model) -> list[Hook]:
    """What a head is read off."""
    return [Z, PATTERN, RESID_POST, *([] if model.weights(0).post_attn_gain is None else [POST_ATTN_SCALE])]


def _at(node: tuple[int, int], estimates: dict[str, np.ndarray]) -> int:
    layer, head = node
    values = estimates["z"][layer, :, head] if head >= 0 else estimates["mlp_out"][layer]
    return int(np.abs(values).argmax())


def _part(
    model: Model,
    node: tuple[int, int],
    shown: Pair,
    estimates: dict[str, np.ndarray],
    runs: tuple[Recording, Recording],
    labels: tuple[str, ...],
) -> Part:
    layer, head = node
    pos = _at(node, estimates)
    moved = _output(model, runs[0], node, pos) - _output(model, runs[1], node, pos)
    state = runs[0].values[RESID_POST, model.sizes.n_layers - 1][pos]
    logits = logit_contributions(model.readout, moved, state).float()
    raises, lowers = promoted(logits, _WRITTEN)
    some = lambda ids: tuple(model.vocabulary.string(int(i)) for i in ids)
    ids = lambda target: [member[0] for member in target.members]
    whole = model.readout.logits(state[None])[0].float()
    share = lambda target: float(whole[ids(target)].softmax(0) @ logits[ids(target)])  # of a set, to first order
    direct = share(shown.answers) - share(shown.wrong)
    looks_at, weight = -1, float("nan")
    if head >= 0:
        row = runs[0].values[PATTERN, layer][head, pos].float()
        looks_at = int(row.argmax())
        weight = float(row[looks_at])
    direct = direct if pos == len(shown.clean) - 1 else 0.0  # elsewhere it reaches no logit by itself
    return Part(layer, head, pos, looks_at, weight, some(raises), some(lowers), direct, labels)


def _output(model: Model, run: Recording, node: tuple[int, int], pos: int) -> torch.Tensor:
    """What a node adds to the stream at a position, `[d_model]`: behind a post-norm, whose scale is the run's own, and
    as far as interventions let it arrive."""
    layer, head = node
    if head < 0:
        return run.values[MLP_OUT, layer][pos].float()
    weights = model.weights(layer)
    added = run.values[Z, layer][pos, head].float() @ weights.W_O[head].float()
    if weights.post_attn_gain is not None:
        added = added * weights.post_attn_gain.float() / run.values[POST_ATTN_SCALE, layer][pos].float()
    if not model.interventions:
        return added
    share, _ = arriving(model, model.interventions, layer, len(run.tokens), (ATTN_RESULT, ATTN_OUT))
    return added * share[head, pos].to(added)


def induction_labels(model: Model, seed: int = 0) -> tuple[dict[tuple[int, int], tuple[str, ...]], str]:
    """Labels of heads by `induction-heads`, each with its q, and their null in words; none where it refuses the model,
    with its reason."""
    refusal = InductionHeads.refusal(model)
    if refusal is not None:
        return {}, f"No labels of induction-heads: {refusal}"
    try:
        *_, result = InductionHeads(length=_SHORTEST, seed=seed).partials(model, None)
    except RefusedError as error:  # of its stimulus: a vocabulary or a context that is too small
        return {}, f"No labels of induction-heads: {error}"
    found: dict[tuple[int, int], tuple[str, ...]] = {}
    for kind in ("induction", "previous_token", "duplicate_token"):
        for layer, head in np.argwhere(result[f"is_{kind}_head"].values.astype(bool)).tolist():
            q = float(result[f"{kind}_score_q"].values[layer, head])
            label = f"{kind.replace('_', '-')} head (q = {q:.2g})"
            found[layer, head] = (*found.get((layer, head), ()), label)
    null = (
        f"induction, previous-token and duplicate-token head: {result.attrs['label']} on {result.attrs['stimulus']}, "
        "against the same distances without a repeat (the previous token: against other keys)"
    )
    return found, null


def copying_labels(
    model: Model, nodes: Sequence[tuple[int, int]], pairs: Sequence[Pair]
) -> dict[tuple[int, int], tuple[str, ...]]:
    """Heads that raise the token that they look at from the last position more than the prompt's other tokens
    ("copies"), or lower it more ("suppresses"): two-sided sign flip over prompts, Benjamini-Hochberg over these heads.

    A prompt on which a head looks at the last position itself tells nothing of copying: it counts as 0.
    """
    if not nodes or len(pairs) < 2:
        return {}
    apart = np.zeros((len(pairs), len(nodes)))
    runs = record_all(model, [pair.clean for pair in pairs], _read(model))
    for row, (pair, run) in enumerate(zip(pairs, runs, strict=True)):
        ids = torch.tensor(pair.clean.ids)
        state = run.values[RESID_POST, model.sizes.n_layers - 1][-1]
        for column, node in enumerate(nodes):
            layer, head = node
            attention = run.values[PATTERN, layer][head, -1].float().clone()
            attention[0] = -1.0  # a sink, which says nothing of its token
            at = int(attention.argmax())
            if at == len(ids) - 1:
                continue
            logits = logit_contributions(model.readout, _output(model, run, node, -1), state).float()
            others = ids[(ids != ids[at])]
            apart[row, column] = float(logits[ids[at]] - logits[others].mean()) if len(others) else np.nan
    p = np.minimum(1, 2 * np.minimum(sign_flip_test(apart), sign_flip_test(-apart)))
    q, mean = benjamini_hochberg(p), apart.mean(0)
    said = lambda column: "copies" if mean[column] > 0 else "suppresses"
    return {
        node: (f"{said(column)} what it looks at, position 0 aside (q = {q[column]:.2g})",)
        for column, node in enumerate(nodes)
        if q[column] <= FALSE_DISCOVERY
    }
