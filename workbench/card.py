"""The card of a model: what it is, what its self-check measured, what does not apply to it, what is kept of it on disk.

    card = model_card(load(), CATALOG)
    print(card.facts["positions"], card.selfcheck.summary, [use.refusal for use in card.refused])

Nothing is computed for it, and no pass is made: all of it is known of a model that is loaded.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from workbench.analysis.kinds import Analysis
from workbench.analysis.refusals import refused
from workbench.arguments import fitted
from workbench.cache import Kept, kept
from workbench.errors import InputError, WorkbenchError
from workbench.files import cache_dir
from workbench.intervene.edit import spans
from workbench.loading.toys import checkpoints, recipes
from workbench.loading.weights import hash_of_files
from workbench.models.model import Identity, Model, Sizes
from workbench.models.selfcheck import SelfCheck
from workbench.models.vocabulary import by_id

__all__ = ["ModelCard", "Use", "model_card", "said_of_experts", "said_of_sight"]

_NORMS = {"rms": "RMSNorm", "layer": "LayerNorm", "none": "none"}
_WAITS = "what it learns from data is not there yet: started once, it says what to do"


@dataclass(frozen=True)
class Use:
    """An analysis on this model. refusal: why it does not run on it, in its own words; "" where it does. waits: what it
    needs first, or ""."""

    name: str
    title: str
    refusal: str = ""
    waits: str = ""


@dataclass(frozen=True)
class ModelCard:
    """What is known of a model.

    n_parameters: numbers in its weights, tied ones once; nbytes: what they take in memory. tied: whether embedding and
    unembedding are one matrix. tokenizer: its class, "" without one. ends: ids that end a text. facts: the rest, and
    all of that, in words by name: architecture, attention, positions, ... analyses: of the catalog that it was asked
    for. kept: what lies in the cache directory of these weights.
    """

    identity: Identity
    sizes: Sizes
    selfcheck: SelfCheck | None
    n_parameters: int
    nbytes: int
    tied: bool
    tokenizer: str
    ends: tuple[int, ...]
    facts: dict[str, str]
    analyses: tuple[Use, ...]
    kept: tuple[Kept, ...]

    @property
    def refused(self) -> tuple[Use, ...]:
        """The analyses that do not apply, or cannot be trusted on it."""
        return tuple(use for use in self.analyses if use.refusal)

    @property
    def waiting(self) -> tuple[Use, ...]:
        """Those that must learn something first."""
        return tuple(use for use in self.analyses if use.waits)


@fitted()
def model_card(model: Model, analyses: Iterable[type[Analysis]] = (), *, results: Path | None = None) -> ModelCard:
    """The card of a model that is loaded.

    analyses: classes that are asked whether they apply: `CATALOG` of `probes`. results: the folder of the page's
    results, where that is not in the cache directory.
    """
    model = model.fixed()
    n_parameters, nbytes = model.adapter.numbers
    tokenizer = "" if model.tokenizer is None else type(model.tokenizer).__name__
    return ModelCard(
        model.made, model.sizes, model.selfcheck,
        n_parameters=n_parameters, nbytes=nbytes,
        tied=model.adapter.tied, tokenizer=tokenizer, ends=model.ends, facts=_facts(model),
        analyses=tuple(_use(kind, model) for kind in analyses),
        kept=kept(model.made.weights_hash, _folders_of(model), results),
    )  # fmt: skip


def _facts(model: Model) -> dict[str, str]:
    """In words, by name; what a model has not is said too."""
    identity, sizes = model.made, model.sizes
    facts = {
        "architecture": identity.architecture,
        "weights": f"{identity.processing}, {identity.dtype} on {identity.device}, sha256 {identity.weights_hash[:16]}",
        "revision": identity.revision or "",
        "badge": identity.badge,
        "attention": _attention(model),
        "keys in sight": said_of_sight(sizes),
        "positions": model.adapter.positions,
        "norm": _norm(model),
        "blocks": "attention and MLP side by side" if sizes.parallel else "attention, then MLP",
        "experts": said_of_experts(sizes) or "none",
        "embeddings": "tied: one matrix reads tokens in and out" if model.adapter.tied else "untied",
        "tokenizer": _tokenizer(model),
        "BOS": _bos(model),
        "ends of a text": ", ".join(_shown(model, end) for end in model.ends) or "none is known",
    }
    if not sizes.d_mlp and not sizes.experts:
        facts["blocks"] = "attention only, no MLP"
    return {name: said for name, said in facts.items() if said}


def _attention(model: Model) -> str:
    """How heads share keys and values, and how scores become a pattern."""
    sizes, weights = model.sizes, model.weights(0)
    n, shared = sizes.n_heads, sizes.n_key_value_heads
    if shared == n:
        heads = f"{n} heads, each with keys and values of its own"
    elif shared == 1:
        heads = f"multi-query: {n} heads read one key/value head"
    else:
        heads = f"grouped queries: {n} heads read {shared} key/value heads, {n // shared} to each"
    sink = ", with a learned sink that takes a part of it" if weights.sinks is not None else ""
    return f"{heads}; {weights.attention}{sink}"


def _norm(model: Model) -> str:
    """In front of a sublayer, behind it, and in front of the unembedding."""
    before, last = model.adapter.norm(0, "attention"), model.readout
    behind = model.weights(0).post_attn_gain is not None or model.weights(0).post_mlp_gain is not None
    if before.kind == "none" and not behind:
        return "none" if last.kind == "none" else f"{_NORMS[last.kind]} in front of the unembedding only"
    where = "before" if not behind else "behind" if before.kind == "none" else "before and behind"
    kind = last.kind if before.kind == "none" else before.kind
    return f"{_NORMS[kind]} {where} each sublayer, eps {before.eps:g}"


def said_of_sight(sizes: Sizes) -> str:
    """Which keys a query sees: `all`, or `windows of 8 in layers 0,2`."""
    if not sizes.sliding:
        return "all"
    word = "chunks" if sizes.chunked else "windows"
    return f"{word} of {spans(sorted(set(sizes.windows)))} in layers {spans(sizes.sliding)}"


def said_of_experts(sizes: Sizes) -> str:
    """How many, where, and how large; "" where there are none."""
    if not sizes.experts:
        return ""
    neurons = f"{sizes.d_expert} neurons each" if sizes.d_expert else "neurons not shown"
    return f"{sizes.n_experts} in layers {spans(sizes.experts)}, {neurons}"


def _tokenizer(model: Model) -> str:
    if model.tokenizer is None:
        return "none: prompts are token ids"
    chat = "with" if getattr(model.tokenizer, "chat_template", None) else "without"
    known = f", {len(model.tokenizer):,} tokens" if hasattr(model.tokenizer, "__len__") else ""
    return f"{type(model.tokenizer).__name__}{known}, {chat} a chat template"


def _bos(model: Model) -> str:
    """What the tokenizer puts in front of a text, asked of it."""
    if model.tokenizer is None:
        return "none is added: ids are taken as they are"
    if front := model.vocabulary.prefix:
        return f"{' '.join(_shown(model, token) for token in front)} is put before a text"
    own = getattr(model.tokenizer, "bos_token_id", None)
    return "nothing is put before a text" + ("" if own is None else f", though it has {_shown(model, int(own))}")


def _shown(model: Model, token: int) -> str:
    text = model.vocabulary.string(token) if token < model.sizes.d_vocab else ""
    return by_id(token) if text in ("", by_id(token)) else f"{text} ({by_id(token)})"


def _use(kind: type[Analysis], model: Model) -> Use:
    if (error := refused(kind(), model)) is not None:
        return Use(kind.name, kind.title, refusal=str(error))
    try:
        return Use(kind.name, kind.title, waits="" if kind().ready(model) else _WAITS)
    except WorkbenchError as error:
        return Use(kind.name, kind.title, waits=str(error))


def _folders_of(model: Model) -> tuple[Path, ...]:
    """Folders of the cache that are the model's own, whatever their files say: its training, or its conversion."""
    identity = model.made
    if identity.architecture == "toy" and recipes.is_toy(identity.name):
        try:
            return (checkpoints.Kept(recipes.asked(identity.name)[0]).folder,)
        except InputError:  # a name that a user gave to a toy of their own: nothing is kept of that
            return ()
    dtype: Any = getattr(torch, identity.dtype)
    places = sorted(path.parent for path in (cache_dir() / "models").glob("*/config.json"))
    return tuple(place for place in places if hash_of_files(place, dtype)[1] == identity.weights_hash)
