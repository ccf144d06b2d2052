"""A model in words: identity, sizes, and every item of its self-check; and its whole card."""

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

from apps.cli.report.summary import WIDTH
from workbench.models.model import Model
from workbench.words import counted

if TYPE_CHECKING:
    from workbench.card import ModelCard

__all__ = ["identity_text", "whole_card"]


def identity_text(model: Model) -> str:
    """Identity, sizes, badge and every self-check item with what was measured, its tolerance and its verdict."""
    identity, sizes = model.identity, model.sizes
    heads = f"{counted(sizes.n_heads, 'head')} ({sizes.n_key_value_heads} key/value) of {sizes.d_head}"
    widths = f"d_model {sizes.d_model}, d_mlp {sizes.d_mlp}, vocabulary {sizes.d_vocab:,}, n_ctx {sizes.n_ctx:,}"
    form = f"{identity.dtype} on {identity.device}, {identity.attention} attention, weights {identity.processing}"
    lines = [
        f"{model.name}: {identity.architecture}, {form}",
        f"  weights sha256  {identity.weights_hash[:16]}...",
        f"  sizes           {counted(sizes.n_layers, 'layer')}, {heads}, {widths}",
    ]
    if identity.revision:
        lines.append(f"  revision        {identity.revision}")
    if identity.badge:
        lines.append(f"  badge           {identity.badge}")
    if model.selfcheck is None:
        return "\n".join([*lines, "Self-check: not run"])
    check = model.selfcheck
    said = ", ".join(filter(None, (check.summary, check.about and f"on {check.about}", check.measured)))
    lines.append(f"Self-check {said}:")
    for item in model.selfcheck.items:
        verdict = "pass" if item.passed else "FAIL"
        note = f"  ({item.note})" if item.note else ""
        lines.append(f"  {verdict}  {item.name:<52} {item.measured:8.2g}  tolerance {item.tolerance:.2g}{note}")
    return "\n".join(lines)


def whole_card(model: Model, card: "ModelCard") -> str:
    """All of it: how the model is built, its self-check, which analyses do not apply and why, what is kept on disk."""
    width = max(map(len, card.facts))
    parts = [identity_text(model), "Built:"]
    parts += [_line(f"{name:<{width}}", said) for name, said in card.facts.items() if name not in _SAID_ABOVE]
    sizes = [f"{name} {value}" for name, value in asdict(card.sizes).items() if type(value) is int]
    parts.append(_line(f"{'sizes':<{width}}", ", ".join(sizes)))
    parts.append(_line(f"{'in memory':<{width}}", f"{card.n_parameters:,} parameters, {card.nbytes / 1e6:,.1f} MB"))
    applying = len(card.analyses) - len(card.refused)
    parts.append(f"Analyses: {applying} of {len(card.analyses)} apply" + (":" if card.refused else "."))
    parts += [_line(use.name, use.refusal) for use in card.refused]
    parts += [_line(f"{use.name} waits:", use.waits) for use in card.waiting]
    parts.append("Kept on disk of it:" if card.kept else "Kept on disk of it: nothing.")
    parts += [_line(f"{one.kind:<10} {one.nbytes / 1e6:>9,.1f} MB", f"{one.about}; {one.where}") for one in card.kept]
    return "\n".join([*parts, "`workbench cache` shows what is kept of all models, and empties it."])


_SAID_ABOVE = ("architecture", "weights", "revision", "badge")  # by `identity_text`


def _line(name: str, said: str) -> str:
    """A name and what is said of it, wrapped."""
    start = f"  {name}  "
    wide = max(40, WIDTH - len(start))
    lines = textwrap.wrap(said, wide, break_long_words=False, break_on_hyphens=False)
    return start + f"\n{' ' * len(start)}".join(lines)
