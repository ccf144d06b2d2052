"""A model in words: identity, sizes, and every item of its self-check."""

from workbench.models.model import Model

__all__ = ["model_card"]


def model_card(model: Model) -> str:
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
    about = f", on {model.selfcheck.about}" if model.selfcheck.about else ""
    lines.append(f"Self-check {model.selfcheck.summary}{about}:")
    for item in model.selfcheck.items:
        verdict = "pass" if item.passed else "FAIL"
        note = f"  ({item.note})" if item.note else ""
        lines.append(f"  {verdict}  {item.name:<52} {item.measured:8.2g}  tolerance {item.tolerance:.2g}{note}")
    return "\n".join(lines)
