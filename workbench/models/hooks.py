"""What can be watched inside a transformer, and the dims of each activation.

Names are the field's. A hook fires once per layer unless `layered` is false. `point` is the place in a
`TransformerBridge` where the activation passes; it is read through `Model`, never by parsing names inside a hook,
since a bridge fires aliases under their canonical name.
"""

from dataclasses import dataclass
from functools import cache
from typing import Annotated, ClassVar

import torch
from annotated_types import Ge

from workbench.arguments import fitted

__all__ = [
    "ALL_HOOKS",
    "ATTN_IN",
    "ATTN_OUT",
    "ATTN_RESULT",
    "EXPERTS_OUT",
    "EXPERT_WEIGHT",
    "LN1_SCALE",
    "LN2_SCALE",
    "LN_FINAL_SCALE",
    "LOGITS",
    "MLP_IN",
    "MLP_OUT",
    "MLP_POST",
    "MLP_PRE",
    "MLP_PRE_LINEAR",
    "PATTERN",
    "POST_ATTN_SCALE",
    "POST_MLP_SCALE",
    "RESID_MID",
    "RESID_POST",
    "RESID_PRE",
    "ROT_K",
    "ROT_Q",
    "ROUTER",
    "SCORES",
    "UNEMBEDDED",
    "Hook",
    "K",
    "Q",
    "V",
    "Z",
    "expert_post",
    "masked_below",
]


@dataclass(frozen=True)
class Hook:
    """One kind of activation.

    name: the field's term, such as `resid_pre`. dims: axis names in order, `batch` first. point: where a bridge shows
    it, with `{layer}` to fill in; empty for what is the forward pass's own output. expert: whose it is, where
    every expert of a mixture has its own.
    """

    name: str
    dims: tuple[str, ...]
    point: str
    layered: bool = True
    expert: int | None = None

    in_words: ClassVar[str] = "a hook such as PATTERN or RESID_POST"

    def __repr__(self) -> str:
        return self.name.upper() if self.expert is None else f"{self.name}({self.expert})"


def _block(name: str, dims: str, point: str) -> Hook:
    return Hook(name, tuple(dims.split()), f"blocks.{{layer}}.{point}")


# The residual stream. `resid_mid` exists only where attention and MLP follow each other (not in parallel blocks).
RESID_PRE = _block("resid_pre", "batch pos d_model", "hook_resid_pre")
RESID_MID = _block("resid_mid", "batch pos d_model", "hook_resid_mid")
RESID_POST = _block("resid_post", "batch pos d_model", "hook_resid_post")

# What the sublayers add to it; behind the sublayer's own post-norm where there is one (Gemma 2 and 3).
ATTN_OUT = _block("attn_out", "batch pos d_model", "hook_attn_out")
MLP_OUT = _block("mlp_out", "batch pos d_model", "hook_mlp_out")

# What the sublayers read: the residual stream behind their norm.
ATTN_IN = _block("attn_in", "batch pos d_model", "attn.hook_in")
MLP_IN = _block("mlp_in", "batch pos d_model", "mlp.hook_in")

# Inside attention. `v` already holds its bias. Rotary models show q and k before and after rotation.
Q = _block("q", "batch pos head d_head", "attn.hook_q")
K = _block("k", "batch pos key_value_head d_head", "attn.hook_k")
V = _block("v", "batch pos key_value_head d_head", "attn.hook_v")
ROT_Q = _block("rot_q", "batch pos head d_head", "attn.hook_rot_q")
ROT_K = _block("rot_k", "batch pos key_value_head d_head", "attn.hook_rot_k")
SCORES = _block("scores", "batch head query key", "attn.hook_attn_scores")
PATTERN = _block("pattern", "batch head query key", "attn.hook_pattern")
Z = _block("z", "batch pos head d_head", "attn.hook_z")
# The sum over heads plus b_O, before a post-norm; equals attn_out where there is none.
ATTN_RESULT = _block("attn_result", "batch pos d_model", "attn.hook_out")

# Inside the MLP: neuron activations that W_out reads (gate times up where the MLP is gated).
MLP_POST = _block("mlp_post", "batch pos neuron", "mlp.hook_post")
# What the activation function reads, and in a gated MLP the other factor.
MLP_PRE = _block("mlp_pre", "batch pos neuron", "mlp.hook_pre")
MLP_PRE_LINEAR = _block("mlp_pre_linear", "batch pos neuron", "mlp.hook_pre_linear")

# A mixture of experts: the router's scores before they choose, and the weight with which each expert of a token enters,
# 0 for those that are not chosen (they need not sum to 1). Weights are for reading: what is written to scores chooses.
ROUTER = _block("router", "batch pos expert", "mlp.hook_router")
EXPERT_WEIGHT = _block("expert_weight", "batch pos expert", "mlp.hook_expert_weight")
# What a token's experts add to the residual stream together, without an expert that all tokens share. For reading.
EXPERTS_OUT = _block("experts_out", "batch pos d_model", "mlp.hook_experts_out")


@fitted()
def expert_post(expert: Annotated[int, Ge(0)]) -> Hook:
    """Neuron activations of one expert, that its W_out reads: NaN for tokens that do not take it. What is written for
    such a token is dropped."""
    return _expert_post(expert)


@cache
def _expert_post(expert: int) -> Hook:
    return Hook(
        "expert_post", ("batch", "pos", "neuron"), f"blocks.{{layer}}.mlp.hook_expert_post.{expert}", True, expert
    )


# Scales that norms divide by.
LN1_SCALE = _block("ln1_scale", "batch pos one", "ln1.hook_scale")
LN2_SCALE = _block("ln2_scale", "batch pos one", "ln2.hook_scale")
POST_ATTN_SCALE = _block("post_attn_scale", "batch pos one", "ln1_post.hook_scale")
POST_MLP_SCALE = _block("post_mlp_scale", "batch pos one", "ln2_post.hook_scale")
LN_FINAL_SCALE = Hook("ln_final_scale", ("batch", "pos", "one"), "ln_final.hook_scale", layered=False)

# What the unembedding reads: not for analyses, whose states are `resid_post` and the readout.
UNEMBEDDED = Hook("unembedded", ("batch", "pos", "d_model"), "unembed.hook_in", layered=False)

# The output of the pass itself, behind a soft cap where there is one.
LOGITS = Hook("logits", ("batch", "pos", "d_vocab"), "", layered=False)

ALL_HOOKS = (
    RESID_PRE, RESID_MID, RESID_POST, ATTN_IN, ATTN_OUT, MLP_IN, MLP_OUT, Q, K, V, ROT_Q, ROT_K, SCORES, PATTERN, Z,
    ATTN_RESULT, MLP_PRE, MLP_PRE_LINEAR, MLP_POST, ROUTER, EXPERT_WEIGHT, EXPERTS_OUT, LN1_SCALE, LN2_SCALE,
    POST_ATTN_SCALE, POST_MLP_SCALE, LN_FINAL_SCALE, LOGITS,
)  # fmt: skip


def masked_below(dtype: torch.dtype) -> float:
    """Scores below this are a mask's: masks write the dtype's lowest number, and CodeGen divides it by sqrt(d_head)."""
    return float(torch.finfo(dtype).min) / 32
