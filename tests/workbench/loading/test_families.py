"""Every family that the installed transformers builds: it loads with every item proved, or is refused in a sentence.

What is read and edited is held against a second model of the same weights and plain PyTorch hooks on its own modules.
"""

from functools import cache

import pytest
import torch

from probes import (
    AttentionSinks,
    CausalCheck,
    DirectLogitAttribution,
    FlowRoutes,
    HeadTable,
    LogitLens,
    SinkRates,
)
from workbench.analysis.run import run
from workbench.errors import RefusedError, WorkbenchError
from workbench.intervene import Ablate, AttentionEdge, Head, Knockout, Patch
from workbench.loading.pretrained import wrap
from workbench.loading.toys.families import FAMILIES, random_model
from workbench.models import selfcheck as sc
from workbench.models.hooks import PATTERN, RESID_PRE, SCORES
from workbench.models.prompt import Prompt
from workbench.observation import Need, keep, observe
from workbench.observation.metrics import Metric
from workbench.observation.recording import record
from workbench.observation.sweeps import base_run, values_of

REFUSED = (
    "phimoe", "qwen3_next", "deepseek_v2", "deepseek_v3", "mamba", "mamba2", "rwkv", "t5",
)  # fmt: skip
UNSOUND = ("bert", "openai-gpt")  # load, and what does not hold of them is named
SOUND = tuple(name for name in FAMILIES if name not in (*REFUSED, *UNSOUND))
WINDOWS = {
    "mistral": ((0, 1), (6, 6), ()), "starcoder2": ((0, 1), (6, 6), ()), "phi3": ((0, 1), (6, 6), ()),
    "gpt_neo": ((1,), (8,), ()), "gemma2": ((0,), (8,), ()), "gemma3": ((0,), (8,), ()), "exaone4": ((0,), (8,), ()),
    "gpt_oss": ((0,), (8,), ()), "llama4": ((0, 1), (8, 8), (0, 1)),
}  # fmt: skip
DISCARDING = ("opt", "gptj", "gpt_neo", "xglm", "llama4", "nanochat")  # whose bridge discards edits of attention

IDS = [4, 33, 80, 33, 12, 7, 50, 51, 52, 3, 9, 10, 11, 33]
PROMPT = Prompt.ids(IDS)
PATTERNS = Need((PATTERN,), keep, dims="head query key")
SCORED = Need((SCORES,), keep, dims="head query key")
STATES = Need((RESID_PRE,), keep, dims="pos d_model")


@cache
def model(family):
    return wrap(random_model(family), None, name=f"tiny-{family}")


@cache
def plain(family):
    """The same weights, which nothing of ours touches."""
    hf = random_model(family)
    hf.set_attn_implementation("eager")
    return hf


@torch.no_grad()
def plain_logits(family, **options):
    return plain(family)(torch.tensor([IDS]), use_cache=False, **options)


def reads_z(family, layer):
    """The output projection of the second model, by the names that the bridge found."""
    mapping = model(family).adapter.bridge.adapter.component_mapping
    attn = model(family).adapter.bridge.blocks[layer].attn
    return plain(family).get_submodule(f"{mapping['blocks'].name}.{layer}.{attn.name}.{attn.o.name}")


B, H = torch.bfloat16, torch.float16
FEW_DIGITS = (("olmo", B), ("olmo2", H), ("gptj", H), ("gemma3", B))  # OLMo rotates in float32; GPT-J's scores are so
# CodeGen divides a mask of float16 that stands in scores of float32: its self-check says that keys are seen otherwise.
UNSEEN = (*FEW_DIGITS, ("codegen", H))
ALL_OF_FEW = [(family, dtype) for family in SOUND for dtype in (B, H) if (family, dtype) not in UNSEEN]


@pytest.mark.parametrize(
    ("family", "dtype"), [*FEW_DIGITS, *(pytest.param(*one, marks=pytest.mark.slow) for one in ALL_OF_FEW)]
)
def test_in_half_precision_it_is_the_model_itself(family, dtype):
    held = random_model(family).to(dtype)
    held.set_attn_implementation("eager")
    ours = wrap(held, None, name=family)
    assert ours.selfcheck.passed, ours.selfcheck
    with torch.no_grad():
        wanted = held(torch.tensor([IDS]), use_cache=False).logits[0]
    assert (observe(ours, PROMPT, positions="all").logits[0] - wanted.float()).abs().max() < 0.02 * wanted.abs().max()


@pytest.mark.parametrize("family", REFUSED)
def test_what_has_no_heads_in_every_block_is_one_sentence(family):
    with pytest.raises(WorkbenchError) as caught:
        wrap(random_model(family), None)
    assert isinstance(caught.value, WorkbenchError) and "\n" not in str(caught.value)


@pytest.mark.parametrize("family", UNSOUND)
def test_what_does_not_hold_is_named(family):
    failed = [item for item in model(family).selfcheck.items if not item.passed]
    assert failed
    with pytest.raises(RefusedError, match="self-check"):
        LogitLens().run(model(family), PROMPT)


@pytest.mark.parametrize("family", SOUND)
def test_every_item_holds(family):
    check = model(family).selfcheck
    assert check.passed, [item.sentence for item in check.items if not item.passed]
    proved = {item.name for item in check.items}
    assert {sc.edits_of(SCORES), sc.edits_of(PATTERN), sc.SOFTMAX, sc.VISIBLE, sc.SAME_AS_PLAIN} <= proved


@pytest.mark.parametrize("family", SOUND)
def test_windows_are_what_the_scores_show(family):
    sizes = model(family).sizes
    assert (sizes.sliding, sizes.windows, sizes.chunked) == WINDOWS.get(family, ((), (), ()))


@pytest.mark.parametrize("family", SOUND)
def test_reading_equals_plain_hugging_face(family):
    """Logits, states and patterns; 1e-5 is rounding in another order of sums (GPT-2's joint projection)."""
    seen = observe(model(family), PROMPT, [PATTERNS, STATES], positions="all")
    own = plain_logits(family, output_hidden_states=True)
    shown = plain_logits(family, output_attentions=True)
    if not torch.allclose(shown.logits, own.logits, atol=1e-5):  # transformers' Falcon computes otherwise when asked
        assert family == "falcon"
        shown.attentions = None
    torch.testing.assert_close(seen.logits[0], own.logits[0], atol=1e-5, rtol=1e-5)
    for layer in range(2):
        torch.testing.assert_close(seen[STATES][layer, 0], own.hidden_states[layer][0], atol=1e-4, rtol=1e-5)
        if shown.attentions and shown.attentions[layer] is not None:
            theirs = shown.attentions[layer][0][..., : len(IDS)]
            torch.testing.assert_close(seen[PATTERNS][layer, 0], theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", SOUND)
def test_ablating_a_head_equals_a_plain_hook(family):
    d_head = model(family).sizes.d_head

    def without(module, inputs):
        z = inputs[0].clone()
        z[..., 2 * d_head : 3 * d_head] = 0
        return (z, *inputs[1:])

    handle = reads_z(family, 1).register_forward_pre_hook(without)
    try:
        own = plain_logits(family).logits[0]
    finally:
        handle.remove()
    ours = observe(model(family), PROMPT, positions="all", interventions=[Ablate(Head(1, 2))]).logits[0]
    torch.testing.assert_close(ours, own, atol=1e-5, rtol=1e-5)
    assert (ours - plain_logits(family).logits[0]).abs().max() > 1e-4


@torch.no_grad()
@pytest.mark.parametrize("family", SOUND)
def test_edited_runs_that_restart_at_a_layer_equal_plain_hooks(family):
    """States of layer 1 of other tokens, two at once: the block before it is left out, and hands on what it would.
    Both are in sight of the last token, whatever the window."""
    other = [*IDS[:10], 61, 5, *IDS[12:]]
    mine, theirs = (plain(family)(torch.tensor([x]), use_cache=False, output_hidden_states=True) for x in (IDS, other))
    wrapped = model(family)
    base, source = base_run(wrapped, Prompt.ids(other)), record(wrapped, Prompt.ids(IDS), [RESID_PRE])
    metric = Metric("log-probability", 31, position=-1)
    found = values_of(wrapped, base, [[Patch(RESID_PRE, 1, source, (at,))] for at in (10, 11)], metric)
    for at, ours in zip((10, 11), found.tolist(), strict=True):

        def put(module, inputs, kwargs, at=at):
            given = inputs[0] if inputs else kwargs["hidden_states"]
            state = given.clone()
            state[:, at] = mine.hidden_states[1][:, at]
            return ((state, *inputs[1:]), kwargs) if inputs else (inputs, {**kwargs, "hidden_states": state})

        blocks = wrapped.adapter.bridge.adapter.component_mapping["blocks"].name
        handle = plain(family).get_submodule(f"{blocks}.1").register_forward_pre_hook(put, with_kwargs=True)
        try:
            edited = plain(family)(torch.tensor([other]), use_cache=False).logits
        finally:
            handle.remove()
        own = float(edited[0, -1].log_softmax(-1)[31])
        assert abs(ours - own) < 1e-4 * max(1.0, abs(own))
        assert abs(own - float(theirs.logits[0, -1].log_softmax(-1)[31])) > 1e-5


@pytest.mark.parametrize("family", SOUND)
def test_attention_is_edited_where_the_model_computes_with_it(family):
    """One edge of one head, and a key hidden from all: z of the plain module is what is left of the pattern times v."""
    query, key = len(IDS) - 1, len(IDS) - 3  # in sight of every window and chunk but Llama 4's, whose chunk is 8 to 13
    intact = observe(model(family), PROMPT).logits[0]
    for edit in (Ablate(AttentionEdge(0, 1, query, key)), Knockout((query,), (key,), (0,))):
        seen = observe(model(family), PROMPT, [PATTERNS, SCORED], interventions=[edit])
        assert not seen[PATTERNS][0, 0, 1, query, key]
        assert (seen.logits[0] - intact).abs().max() > 1e-5, str(edit)


@pytest.mark.parametrize("family", SOUND)
def test_lens_attribution_and_routes_add_up(family):
    wrapped, own = model(family), plain_logits(family).logits[0, -1]
    lens = LogitLens(top_k=1).run(wrapped, PROMPT)
    assert int(lens["top_token"].isel(depth=-1, pos=-1, rank=0)) == int(own.argmax())
    shares = DirectLogitAttribution(target="#31").run(wrapped, PROMPT)
    cap = wrapped.readout.soft_cap
    if not cap:
        assert abs(float(shares["attribution"].sum()) - float(own[31])) < 1e-4 * max(1.0, float(own.abs().max()))
    routes = FlowRoutes(min_share=0.0, min_coverage=1.0).run(wrapped, PROMPT)
    assert float(routes["residue"].max()) < 1e-4


@pytest.mark.parametrize("family", DISCARDING)
def test_the_installed_bridge_still_discards_these(family):
    """If this fails, the bridge has learned it, and `native.py` may go for this family."""
    assert list(model(family).adapter.native) == [0, 1]


def test_an_edit_that_does_nothing_is_refused(monkeypatch):
    """Without hooks inside the module OPT's bridge discards edits: the self-check notices and interventions refuse."""
    monkeypatch.setattr("workbench.loading.bridge.discarding", lambda *args: [])
    opt = wrap(random_model("opt"), None, name="opt")
    failed = {item.name for item in opt.selfcheck.items if not item.passed}
    assert {sc.edits_of(SCORES), sc.edits_of(PATTERN), sc.SOFTMAX} <= failed
    with pytest.raises(RefusedError, match="edits of scores"):
        observe(opt, PROMPT, interventions=[Knockout((5,), (2,), (0,))])
    observe(opt, PROMPT, interventions=[Ablate(Head(0, 1))])  # what is proved still works


def test_scores_that_are_no_scores_refuse_what_reads_them(monkeypatch):
    """Sink logits of patterns would be probabilities; what needs no scores still runs."""
    monkeypatch.setattr("workbench.loading.bridge.discarding", lambda *args: [])
    xglm = wrap(random_model("xglm"), None, name="xglm")
    found = run(xglm, PROMPT, [AttentionSinks, LogitLens])
    assert isinstance(found["attention-sinks"].error, RefusedError) and sc.SOFTMAX in str(found["attention-sinks"])
    assert "top_token" in found["logit-lens"]


def test_values_that_are_clipped_behind_their_hook_refuse_what_reads_them(monkeypatch):
    """OLMo's queries, keys and values are clipped where its config says so, behind where they are seen: norms of values
    would be of others than the model moves. What heads write, and where they look, is as it is."""
    kind, options = FAMILIES["olmo"]
    clipped = {**FAMILIES, "olmo": (kind, {**options, "clip_qkv": 0.3})}
    monkeypatch.setattr("workbench.loading.toys.families.FAMILIES", clipped)
    olmo = wrap(random_model("olmo"), None, name="olmo")
    assert {item.name for item in olmo.selfcheck.items if not item.passed} >= {sc.PARTS}
    for entry in (HeadTable, DirectLogitAttribution, AttentionSinks):
        assert sc.PARTS in str(entry.refusal(olmo))
    with pytest.raises(RefusedError, match=sc.PARTS):
        CausalCheck(units="L1H2 key 3").run(olmo, PROMPT)
    found = run(olmo, PROMPT, [CausalCheck(units="L1H2", peers=5), SinkRates(samples=2, length=16), LogitLens])
    assert not any(hasattr(one, "error") for one in found.values()), found
