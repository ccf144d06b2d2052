"""The adapter for a TransformerLens bridge around a Hugging Face model. The only file that knows transformer_lens.

What the bridge does not do right and this file minds: `cfg.rotary_base` may be wrong (never read); the bridge is not
thread-safe (callers hold Model.lock); `start_at_layer` still runs the blocks before it (we skip them instead).
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import nn

from workbench.draws import Draws
from workbench.errors import ModelError
from workbench.loading.build import is_tied, need_heads, numbers_of, positions_of
from workbench.loading.components import bias_of, eps_of, gain_of, logit_scale_of, mlp_of, scale_of, scaled, sinks_of
from workbench.loading.expert_neurons import ExpertNeurons, expert_neurons
from workbench.loading.experts import experts_of, instrument_mixture, router_of
from workbench.loading.given import need_causal
from workbench.loading.native import discarding, instrument
from workbench.loading.rotations import by_length, forget, own, rounded
from workbench.loading.windows import masks, measured, visible
from workbench.models.hooks import (
    ATTN_OUT,
    ATTN_RESULT,
    EXPERT_WEIGHT,
    EXPERTS_OUT,
    MLP_POST,
    MLP_PRE,
    MLP_PRE_LINEAR,
    PATTERN,
    ROUTER,
    SCORES,
    Hook,
)
from workbench.models.model import ExpertWeights, LayerWeights, Sizes
from workbench.models.norm import Norm
from workbench.models.passes import giving_tuples
from workbench.models.readout import Readout
from workbench.pauses import pause

__all__ = ["BridgeAdapter", "Measured", "boot"]


@dataclass(frozen=True)
class Measured:
    """What is measured of a model when a bridge is put around it, by passes.

    native: layers whose attention the bridge leaves to the Hugging Face module. tuples: layers whose block gives a
    tuple. sliding, windows, chunked: of `Sizes`.
    """

    native: tuple[int, ...]
    tuples: tuple[int, ...]
    sliding: tuple[int, ...]
    windows: tuple[int, ...]
    chunked: tuple[int, ...]


def boot(hf_model: nn.Module, held: Any = None, known: Measured | None = None) -> "BridgeAdapter":
    """Put a bridge around a Hugging Face causal language model that is in memory.

    The model is changed in place (its modules are wrapped, attention becomes eager): give a twin, and compute any
    reference before. held: the model that it is the twin of. known: what was measured of the same model before.

    Raises what it likes for an architecture that TransformerLens does not know.
    """
    # A private module of TransformerLens, and on purpose: boot_transformers would ask a hub for a tokenizer by name.
    from transformer_lens.model_bridge.sources._bridge_builder import build_bridge_from_module

    architecture = (getattr(hf_model.config, "architectures", None) or [type(hf_model).__name__])[0]
    with Draws(0):  # it makes layers, whose random weights it then replaces
        bridge = build_bridge_from_module(hf_model, architecture, hf_config=hf_model.config)
    bridge.eval()
    need_heads(bridge, architecture)
    return BridgeAdapter(bridge, hf_model if held is None else held, known)


class BridgeAdapter:
    """Hook points, weights and readout of a TransformerBridge under our names.

    hf_model: the plain model whose weights the bridge shares. known: what was measured of it before; measured else.
    """

    def __init__(self, bridge: Any, hf_model: Any, known: Measured | None = None) -> None:
        self.bridge = bridge
        self.hf_config = hf_model.config.get_text_config()
        self.hf_model = hf_model
        self.sizes = self._sizes()
        self._points: dict[tuple[str, int | None], Any] = {}
        self._weights: dict[int, LayerWeights] = {}
        self._neurons: dict[int, ExpertNeurons] = {}
        self.by_length = by_length(self.hf_config)
        self._rotating = own(bridge) if self.by_length else []
        for block in self.blocks:
            rounded(block.attn)
        self._see_inside(self._discarding() if known is None else known.native)
        self.tuples = giving_tuples(self.blocks, lambda: self._run(3)) if known is None else known.tuples
        self._see_routers()
        self._give_weights()
        if known is None:
            ids, held = torch.arange(6, device=self.device)[None] % self.sizes.d_vocab, self.hf_model
            need_causal(type(held).__name__, self.forward, ids, next(held.parameters()).dtype)
            self.sizes = measured(self.sizes, self.hf_config, self._seen, self._handed)
        else:
            self.sizes = replace(self.sizes, sliding=known.sliding, windows=known.windows, chunked=known.chunked)

    @property
    def measured(self) -> Measured:
        """What was measured of the model, to be known the next time."""
        return Measured(self.native, self.tuples, self.sizes.sliding, self.sizes.windows, self.sizes.chunked)

    def _discarding(self) -> tuple[int, ...]:
        return tuple(discarding(self.bridge, lambda: self._run(3), range(self.sizes.n_layers)))

    def _see_inside(self, native: tuple[int, ...]) -> None:
        """Where the bridge discards what is written to a pattern, scores and patterns are met inside the module."""
        self.native = native
        for layer in native:
            scores, pattern = _point(), _point()
            instrument(self.bridge.blocks[layer].attn, self.sizes.n_heads, scores, pattern)
            self._points[SCORES.name, layer], self._points[PATTERN.name, layer] = scores, pattern

    def _give_weights(self) -> None:
        """A norm without a gain (OLMo) gets one of 1: where its scale is edited, the bridge asks for it."""
        for component in self.bridge.modules():
            if hasattr(component, "uses_rms_norm"):
                norm = getattr(component, "original_component", None)
                if norm is not None and getattr(norm, "weight", None) is None:
                    component.__dict__["weight"] = 1.0  # on the bridge's own: the model has none

    def _see_routers(self) -> None:
        """Hook points at the router of every mixture of experts, and at the neurons of each."""
        found: list[int] = []
        n_experts = d_expert = 0
        for layer, block in enumerate(self.bridge.blocks):
            mlp = getattr(block, "mlp", None)
            router = router_of(mlp)
            if router is None:
                continue
            scores, weights = _point(), _point()
            neurons = expert_neurons(experts_of(mlp), scale_of(block), _point)
            n_experts = instrument_mixture(mlp, router, scores, weights, neurons)
            self._points[ROUTER.name, layer], self._points[EXPERT_WEIGHT.name, layer] = scores, weights
            found.append(layer)
            if neurons is not None:
                self._neurons[layer], d_expert = neurons, neurons.d_expert
                self._points[EXPERTS_OUT.name, layer] = neurons.out
        self.sizes = replace(self.sizes, experts=tuple(found), n_experts=n_experts, d_expert=d_expert)

    def _run(self, n_pos: int) -> None:
        """A pass over some tokens, for what is measured of it."""
        pause()
        with torch.no_grad():
            self.forward(torch.arange(n_pos, device=self.device)[None] % self.sizes.d_vocab)

    def _seen(self, n_pos: int) -> list[torch.Tensor]:
        """Visible keys of each layer by the scores of a pass."""
        found: dict[int, torch.Tensor] = {}

        def reader(layer: int) -> Any:
            def read(scores: torch.Tensor, hook: Any) -> None:
                found[layer] = visible(scores[0]).any(0).cpu()

            return read

        points = [self.point(SCORES, layer) for layer in range(self.sizes.n_layers)]
        handles = [(point, point.add_hook(reader(layer))) for layer, point in enumerate(points)]
        try:
            self._run(n_pos)
        finally:
            for point, handle in handles:
                self.remove(point, handle)
        everything = torch.ones(n_pos, n_pos, dtype=torch.bool).tril()
        return [found.get(layer, everything) for layer in range(self.sizes.n_layers)]

    def _handed(self, n_pos: int) -> list[torch.Tensor]:
        """Visible keys of each layer by the masks of a pass without its blocks."""
        return masks(self.blocks, lambda: self._run(n_pos), n_pos, self.tuples)

    def _sizes(self) -> Sizes:
        cfg = self.bridge.cfg
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
        )

    @property
    def positions(self) -> str:
        """How a token's position enters, in words."""
        return positions_of(self.hf_model)

    @property
    def tied(self) -> bool:
        """Whether embedding and unembedding are one matrix."""
        return is_tied(self.hf_model)

    @property
    def numbers(self) -> tuple[int, int]:
        """How many numbers its weights are, and their bytes; without what a bridge lays beside them."""
        return numbers_of(self.hf_model)

    @property
    def device(self) -> torch.device:
        """Where the embedding lives."""
        return next(self.hf_model.get_input_embeddings().parameters()).device

    def place(self, layer: int) -> torch.device:
        """Where the block's parameters are."""
        return next(self.bridge.blocks[layer].parameters()).device

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """`[batch, pos]` ids to logits `[batch, pos, d_vocab]`."""
        forget(self._rotating)
        return self.bridge(tokens, return_type="logits", use_cache=False)

    @property
    def ends(self) -> tuple[int, ...]:
        """Token ids that end a text, by the generation config and the config."""
        configs = (getattr(self.hf_model, "generation_config", None), self.hf_model.config, self.hf_config)
        named = [getattr(config, "eos_token_id", None) for config in configs]
        each = [i for ids in named for i in (ids if isinstance(ids, list | tuple) else [ids])]
        odd = [i for i in each if not isinstance(i, int | None)]
        if odd:
            raise ModelError(f"an end token {odd[0]!r} in the configuration", "ids of tokens", "Correct eos_token_id")
        return tuple(dict.fromkeys(int(i) for i in each if i is not None))

    def point(self, hook: Hook, layer: int | None) -> Any:
        """The bridge's hook point behind one of our hooks; KeyError where this model has none."""
        if hook is ATTN_RESULT and layer is not None and self.weights(layer).post_attn_gain is None:
            hook = ATTN_OUT  # the same; BLOOM's attention adds the residual stream to what its module returns
        if hook.expert is not None:
            return self._posts(layer)[hook.expert]
        key = (hook.name, layer)
        inside = hook in (MLP_PRE, MLP_PRE_LINEAR, MLP_POST)
        if inside and layer is not None and self.weights(layer).W_out is None:
            raise KeyError(hook.name)  # experts have neurons of their own, and what a bridge calls so is their output
        if key not in self._points:
            if hook in (ROUTER, EXPERT_WEIGHT, EXPERTS_OUT):
                raise KeyError(hook.name)
            self._points[key] = self._hook_dict[self._canonical(hook.point.format(layer=layer))]
        return self._points[key]

    def _posts(self, layer: int | None) -> dict[int, Any]:
        """Points of the neurons of a layer's experts, none where there are none."""
        return {} if layer not in self._neurons else dict(enumerate(self._neurons[layer].posts))

    def expert(self, layer: int, expert: int) -> ExpertWeights:
        """Weights of one expert."""
        return self._neurons[layer].weights(expert)

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

    @property
    def blocks(self) -> list[nn.Module]:
        """The bridge's components."""
        return list(self.bridge.blocks)

    def weights(self, layer: int) -> LayerWeights:
        """Weights of one layer; views of the model's own where the layout allows."""
        if layer not in self._weights:  # a cache on the adapter: one on the method would keep every model for ever
            self._weights[layer] = self._layer_weights(layer)
        return self._weights[layer]

    def _layer_weights(self, layer: int) -> LayerWeights:
        block = self.bridge.blocks[layer]
        attn = block.attn
        scale = scale_of(block)
        W_O, mlp = attn.W_O.detach(), mlp_of(block, scale)
        return LayerWeights(
            W_Q=attn.W_Q.detach(),
            W_K=attn.W_K.detach(),
            W_V=attn.W_V.detach(),
            W_O=scaled(W_O, scale),
            b_O=scaled(bias_of(attn, "b_O", W_O.new_zeros(self.sizes.d_model)), scale),
            post_attn_gain=gain_of(getattr(block, "ln1_post", None)),
            post_mlp_gain=gain_of(getattr(block, "ln2_post", None)),
            sinks=sinks_of(attn),
            W_in=mlp["W_in"],
            W_gate=mlp["W_gate"],
            W_out=mlp["W_out"],
            b_out=mlp.get("b_out"),
        )

    def reading_z(self, layer: int) -> nn.Module | None:
        """The Hugging Face output projection."""
        return getattr(getattr(self.bridge.blocks[layer].attn, "o", None), "original_component", None)

    def norm(self, layer: int, sublayer: str) -> Norm:
        """The Hugging Face norm under the bridge's hooks; one that both sublayers of a parallel block share."""
        block = self.bridge.blocks[layer]
        own: Any = getattr(block, "ln1" if sublayer == "attention" else "ln2", None)
        if own is None and sublayer == "mlp" and self.sizes.parallel:
            own = getattr(block, "ln1", None)
        component = getattr(own, "original_component", None)
        gain = gain_of(own)
        return Norm(
            module=nn.Identity() if component is None else component,
            kind="none" if component is None else ("rms" if own.uses_rms_norm else "layer"),
            gain=torch.ones(self.sizes.d_model, device=self.place(layer), dtype=torch.float32)
            if gain is None
            else gain.float(),
            eps=eps_of(component, self.bridge.cfg),
        )

    def attention(self, layer: int) -> nn.Module:
        """The bridge's component."""
        return self.bridge.blocks[layer].attn

    def readout(self) -> Readout:
        """Final norm and unembedding under the bridge's hooks, with soft cap and logit scale from the config."""
        norm = getattr(self.bridge, "ln_final", None)
        component = norm.original_component if norm is not None else nn.Identity()
        gain = gain_of(norm)
        rms = norm is not None and bool(norm.uses_rms_norm)
        bias = getattr(component, "bias", None)
        zeros = torch.zeros_like(self.bridge.unembed.original_component.weight[0], dtype=torch.float32)
        return Readout(
            norm=component,
            unembed=self.bridge.unembed.original_component,
            kind="none" if norm is None else ("rms" if rms else "layer"),
            eps=eps_of(component, self.bridge.cfg),
            gain=torch.ones_like(zeros) if gain is None else gain.float(),
            norm_bias=zeros if bias is None else bias.detach().float(),
            soft_cap=getattr(self.hf_config, "final_logit_softcapping", None),
            logit_scale=logit_scale_of(self.hf_config),
        )

    def parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Names and tensors of all parameters, tied ones once."""
        return list(self.bridge.original_model.named_parameters())


def _point() -> Any:
    """A hook point of our own, that works as the bridge's do."""
    from transformer_lens.hook_points import HookPoint

    return HookPoint()
