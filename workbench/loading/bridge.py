"""The adapter for a TransformerLens bridge around a Hugging Face model. The only file that knows transformer_lens.

What the bridge does not do right and this file minds: `cfg.rotary_base` may be wrong (never read); the bridge is not
thread-safe (callers hold Model.lock); `start_at_layer` still runs the blocks before it (we skip them instead).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from typing import Any

import torch
from torch import nn

from workbench.draws import Draws
from workbench.errors import RefusedError
from workbench.models.hooks import Hook
from workbench.models.model import LayerWeights, Sizes
from workbench.models.passes import skipped
from workbench.models.readout import Readout

__all__ = ["BridgeAdapter", "boot"]


def boot(hf_model: nn.Module, held: Any = None) -> "BridgeAdapter":
    """Put a bridge around a Hugging Face causal language model that is in memory.

    The model is changed in place (its modules are wrapped, attention becomes eager): give a twin, and compute any
    reference before. held: the model that it is the twin of.

    Raises RefusedError for an architecture that TransformerLens does not know.
    """
    # A private module of TransformerLens, and on purpose: boot_transformers would ask a hub for a tokenizer by name.
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    architecture = (getattr(hf_model.config, "architectures", None) or [type(hf_model).__name__])[0]
    try:
        with Draws(0):  # it makes layers, whose random weights it then replaces
            bridge = build_bridge_from_module(hf_model, architecture, hf_config=hf_model.config)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise RefusedError(
            f"a model of architecture {architecture} ({error})",
            "one that TransformerLens's TransformerBridge supports",
            "Pick another model, or check the installed transformer-lens version",
        ) from error
    bridge.eval()
    return BridgeAdapter(bridge, hf_model if held is None else held)


class BridgeAdapter:
    """Hook points, weights and readout of a TransformerBridge under our names.

    hf_model: the plain model whose weights the bridge shares.
    """

    def __init__(self, bridge: Any, hf_model: Any) -> None:
        self.bridge = bridge
        self.hf_config = hf_model.config.get_text_config()
        self.hf_model = hf_model
        self.sizes = self._sizes()
        self._points: dict[tuple[str, int | None], Any] = {}

    def _sizes(self) -> Sizes:
        cfg, config = self.bridge.cfg, self.hf_config
        kinds = getattr(config, "layer_types", None) or []
        window = getattr(config, "sliding_window", None)
        sliding = tuple(i for i, kind in enumerate(kinds) if kind == "sliding_attention" and window)
        return Sizes(
            n_layers=cfg.n_layers,
            n_heads=cfg.n_heads,
            n_key_value_heads=getattr(cfg, "n_key_value_heads", None) or cfg.n_heads,
            d_model=cfg.d_model,
            d_head=cfg.d_head,
            d_mlp=cfg.d_mlp or 0,
            d_vocab=self.bridge.unembed.original_component.weight.shape[0],
            n_ctx=cfg.n_ctx,
            parallel="hook_resid_mid" not in self.bridge.blocks[0].hook_aliases
            or "Parallel" in type(self.bridge.blocks[0]).__name__,
            sliding=sliding,
            window=window if sliding else None,
        )

    @property
    def device(self) -> torch.device:
        """Where the embedding lives."""
        return next(self.hf_model.get_input_embeddings().parameters()).device

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[batch, pos]` ids to logits `[batch, pos, d_vocab]`."""
        return self.bridge(tokens, return_type="logits", use_cache=False)

    def point(self, hook: Hook, layer: int | None) -> Any:
        """The bridge's hook point behind one of our hooks; KeyError where this model has none."""
        key = (hook.name, layer)
        if key not in self._points:
            self._points[key] = self._hook_dict[self._canonical(hook.point.format(layer=layer))]
        return self._points[key]

    @cached_property
    def _hook_dict(self) -> dict[str, Any]:
        return dict(self.bridge.hook_dict)

    @cached_property
    def _aliases(self) -> dict[str, str]:
        from transformer_lens.model_bridge.bridge_core import build_alias_to_canonical_map

        return build_alias_to_canonical_map(self._hook_dict)

    def _canonical(self, name: str) -> str:
        if name in self._hook_dict:
            return name
        if name in self._aliases:
            return self._aliases[name]
        found = self._resolve(name)
        if found is None:
            raise KeyError(name)
        return found

    def _resolve(self, name: str) -> str | None:
        """Walk attributes for aliases that a bridge resolves at access only."""
        target = self.bridge
        for part in name.split("."):
            target = target[int(part)] if part.isdigit() else getattr(target, part, None)
            if target is None:
                return None
        return next((known for known, point in self._hook_dict.items() if point is target), None)

    def remove(self, point: Any, handle: Any) -> None:
        """Take back what `point.add_hook` returned."""
        handle.hook.remove()
        if handle in point.fwd_hooks:
            point.fwd_hooks.remove(handle)
        if handle in point.bwd_hooks:
            point.bwd_hooks.remove(handle)

    @contextmanager
    def skipping(self, before: int, here: Callable[[], bool]) -> Iterator[None]:
        """While open, blocks 0 ... before-1 hand on their input where `here` says yes."""
        with skipped(list(self.bridge.blocks)[:before], here):
            yield

    @cache  # noqa: B019 - one adapter lives as long as its model; weights are views
    def weights(self, layer: int) -> LayerWeights:
        """Weights of one layer; views of the model's own where the layout allows."""
        block = self.bridge.blocks[layer]
        attn = block.attn
        like = attn.W_O
        return LayerWeights(
            W_Q=attn.W_Q.detach(),
            W_K=attn.W_K.detach(),
            W_V=attn.W_V.detach(),
            W_O=attn.W_O.detach(),
            b_O=_bias(attn, "b_O", like.new_zeros(self.sizes.d_model)),
            post_attn_gain=_gain(getattr(block, "ln1_post", None)),
            post_mlp_gain=_gain(getattr(block, "ln2_post", None)),
            **_mlp(block),
        )

    def readout(self) -> Readout:
        """Final norm and unembedding under the bridge's hooks, with soft cap and logit scale from the config."""
        norm = getattr(self.bridge, "ln_final", None)
        component = norm.original_component if norm is not None else nn.Identity()
        gain = _gain(norm)
        rms = norm is not None and bool(norm.uses_rms_norm)
        bias = getattr(component, "bias", None)
        zeros = torch.zeros(self.sizes.d_model, device=self.device)
        return Readout(
            norm=component,
            unembed=self.bridge.unembed.original_component,
            kind="none" if norm is None else ("rms" if rms else "layer"),
            eps=float(
                getattr(component, "variance_epsilon", None) or getattr(component, "eps", None) or self.bridge.cfg.eps
            ),
            gain=torch.ones_like(zeros) if gain is None else gain.float(),
            norm_bias=zeros if bias is None else bias.detach().float(),
            soft_cap=getattr(self.hf_config, "final_logit_softcapping", None),
            logit_scale=_logit_scale(self.hf_config),
        )

    def parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Names and tensors of all parameters, tied ones once."""
        return [(name, parameter.detach()) for name, parameter in self.bridge.original_model.named_parameters()]


def _logit_scale(config: Any) -> float:
    """Cohere multiplies logits, Granite divides them."""
    if getattr(config, "logits_scaling", None):
        return 1.0 / float(config.logits_scaling)
    return float(getattr(config, "logit_scale", None) or 1.0)


def _bias(module: Any, name: str, absent: torch.Tensor) -> torch.Tensor:
    """A bias, or zeros: bridges raise different errors where a layer has none."""
    try:
        value = getattr(module, name)
    except AttributeError:
        value = None
    return absent if value is None else value.detach()


def _gain(norm: Any) -> torch.Tensor | None:
    """What a norm multiplies by after dividing by its scale (Gemma stores it as an offset from 1)."""
    weight = getattr(getattr(norm, "original_component", None), "weight", None)
    if weight is None:
        return None
    return (1.0 + weight if norm.uses_weight_offset else weight).detach()


def _mlp(block: Any) -> dict[str, torch.Tensor | None]:
    """MLP weights under standard names, or nothing where the MLP is of another kind (experts)."""
    mlp = getattr(block, "mlp", None)
    found: dict[str, torch.Tensor | None] = {}
    for name in ("W_in", "W_gate", "W_out"):
        value = getattr(mlp, name, None) if mlp is not None and hasattr(mlp, "out") else None
        found[name] = None if value is None else value.detach()
    if found["W_out"] is not None:
        found["b_out"] = _bias(mlp, "b_out", found["W_out"].new_zeros(found["W_out"].shape[-1]))
    return found
