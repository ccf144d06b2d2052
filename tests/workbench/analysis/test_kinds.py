"""What an analysis is: sections, refusals, keys, and a probe written as a user writes one."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from probes.lens.logit_lens import LogitLens
from tests.example_probe import AttentionEntropy, row_entropy
from tests.tiny_models import tiny_model
from workbench.analysis.kinds import OnModel, OnPrompt, Stimulus, Study
from workbench.analysis.results import check, dataset
from workbench.analysis.run import run
from workbench.errors import InputError
from workbench.intervene import Ablate, Head
from workbench.models.hooks import PATTERN, RESID_POST
from workbench.models.prompt import Prompt, tokenise
from workbench.models.selfcheck import ROWS, Item, SelfCheck
from workbench.observation import Need, observe

IDS = Prompt.ids([2, 45, 45, 8, 61, 30])


def norm(resid, site):
    """Length of every state."""
    return resid.float().norm(dim=-1)


NORM = Need((RESID_POST,), norm, dims="pos")


class OwnPrompts(OnModel, name="own-prompts", title="Own prompts"):
    """Lengths of states on prompts of its own.

    Definition: the length of every state, meaned over a stimulus and its field.
    Limits: none worth a word.
    Source: made for these tests.
    """

    n: int = 3

    def stimulus(self, model, progress=None):
        """As many prompts as asked."""
        tokens = tuple(tokenise(model, Prompt.ids([2, 3 + i, 7])) for i in range(self.n))
        return Stimulus(tokens, {"weight": torch.arange(1.0, 1 + self.n)}, took=0.25 if self.n == 2 else 0.0)

    def needs(self, model, tokens):
        """All of them."""
        return (NORM,)

    def analyse(self, observation):
        """Weighted by the field."""
        weight = observation.fields["weight"]
        return dataset(None, length=("layer", observation[NORM][..., 2] @ weight, "length", (0, None)))


# --- what a docstring says --------------------------------------------------------------------------------------------


def test_a_docstrings_sections_are_what_it_says_of_itself():
    assert AttentionEntropy.name == "attention-entropy" and AttentionEntropy.title == "Attention entropy"
    assert AttentionEntropy.definition == (
        "mean over queries q >= first of the entropy of row q, in nats, over that of uniform attention over the keys "
        "that q can see: 0 looks at one token, 1 at all alike."
    )
    assert AttentionEntropy.limits.startswith("a head that dumps") and AttentionEntropy.source.startswith("Zhai et al.")
    assert AttentionEntropy.returns == "`entropy` (layer, head), unitless."
    assert OwnPrompts.limits == "none worth a word." and OwnPrompts.returns == ""


def test_sections_may_have_paragraphs_and_colons():
    class Long(OnPrompt, name="long"):
        """Summary: not a section of ours.

        Definition: one half: of it.

        A second paragraph, with
        a line more.

        Limits: some.
        Source: Someone 2020.
        """

    assert Long.definition == "one half: of it.\n\nA second paragraph, with a line more."
    assert Long.title == "long" and Long.limits == "some."


@pytest.mark.parametrize("missing", ["Definition", "Limits", "Source"])
def test_a_missing_section_refuses_the_class(missing):
    sections = [f"{name}: words." for name in ("Definition", "Limits", "Source") if name != missing]
    for doc in ("Summary.\n\n" + "\n".join(sections), "\n".join([*sections, f"{missing}:"]), None):
        with pytest.raises(InputError, match=rf"the analysis bare without '({missing}|Definition):' in its docstring"):
            type("Bare", (OnPrompt,), {"__doc__": doc, "__module__": __name__}, name="bare")


def test_a_class_without_a_name_is_a_kind_of_its_own():
    class OnLastToken(OnPrompt):
        """A kind: no sections are asked of it."""

        def needs(self, model, tokens):
            return ()

    assert OnLastToken.name == "" and OnLastToken.shares_pass


def test_kinds_differ_in_what_they_bring():
    about = {kind: (kind.shares_pass, kind.prompted, kind.editable) for kind in (OnPrompt, OnModel, Study)}
    assert about == {OnPrompt: (True, True, True), OnModel: (False, False, True), Study: (False, True, True)}


def test_what_a_kind_must_define_is_asked_for():
    class Empty(OnPrompt, name="empty"):
        """E.

        Definition: d.
        Limits: l.
        Source: s.
        """

    with pytest.raises(NotImplementedError):
        Empty().run(tiny_model("llama"), IDS)


# --- a probe as a user writes one -------------------------------------------------------------------------------------


def test_the_example_on_planted_patterns():
    uniform = torch.ones(1, 2, 5, 5).tril() / torch.arange(1, 6)[:, None]
    assert torch.allclose(row_entropy(uniform, None)[..., 1:], torch.ones(1, 2, 4))
    assert not row_entropy(torch.eye(5).expand(1, 2, 5, 5), None).any()


def test_the_example_runs_on_every_tiny_model(tiny):
    result = AttentionEntropy(first=2).run(tiny, IDS)
    pattern = observe(tiny, IDS, [Need((PATTERN,), keep_pattern, dims="head query key")])
    kept = next(iter(pattern.results.values()))[:, 0].double()
    for layer in range(2):
        for head in range(4):
            rows = [
                -(row * row.clamp_min(1e-300).log()).sum() / np.log(q + 1) for q, row in enumerate(kept[layer, head])
            ]
            assert float(result["entropy"][layer, head]) == pytest.approx(float(sum(rows[2:]) / 4), abs=1e-5)
    assert check(result) is result and "fewest tokens" in AttentionEntropy().sentence(result)
    record = json.loads(result.attrs["provenance"])
    assert record["analysis"] == "attention-entropy" and record["params"] == {"first": 2}
    assert record["token_ids"] == [2, 45, 45, 8, 61, 30] and record["source"].startswith("Zhai")
    assert result.attrs["title"] == "Attention entropy"


def keep_pattern(pattern, site):
    """All of it."""
    return pattern.detach().float().clone()


def test_the_example_runs_beside_ours_in_one_pass(tiny):
    passes = []
    handle = tiny.adapter.bridge.blocks[0].register_forward_hook(lambda *_: passes.append(1))
    try:
        found = run(tiny, IDS, [LogitLens(top_k=3), AttentionEntropy(first=3)])
    finally:
        handle.remove()
    assert len(passes) == 1 and list(found) == ["logit-lens", "attention-entropy"]
    xr.testing.assert_identical(found["attention-entropy"], AttentionEntropy(first=3).run(tiny, IDS))
    xr.testing.assert_identical(found["logit-lens"], LogitLens(top_k=3).run(tiny, IDS))


# --- an analysis of the model -----------------------------------------------------------------------------------------


def test_an_analysis_of_the_model_brings_its_prompts_and_their_fields():
    model = tiny_model("gpt2")
    result = OwnPrompts().run(model)
    seen = observe(model, [Prompt.ids([2, 3 + i, 7]) for i in range(3)], [NORM])[NORM]
    expected = seen[:, 0, 2] + 2 * seen[:, 1, 2] + 3 * seen[:, 2, 2]
    np.testing.assert_allclose(result["length"], expected, rtol=1e-6)
    xr.testing.assert_identical(OwnPrompts().run(model, IDS), result)  # whatever the prompt
    record = json.loads(result.attrs["provenance"])
    assert record["token_ids"] is None and record["n_prompts"] == 0


def test_a_stimulus_that_takes_long_has_its_share_of_the_progress():
    told = []
    OwnPrompts(n=2).run(tiny_model("gpt2"), progress=told.append)
    assert told == [pytest.approx(0.25 + 0.75 * share) for share in (0.5, 1.0)]


# --- refusals, readiness and keys -------------------------------------------------------------------------------------


def test_it_refuses_a_model_where_its_assumption_failed():
    model = tiny_model("llama")
    assert AttentionEntropy.refusal(model) is None and LogitLens.refusal(model) is None
    model.selfcheck = SelfCheck((Item(ROWS, 0.3, 1e-5, False),))
    assert "0.3 against a tolerance of 1e-05" in AttentionEntropy.refusal(model)
    assert OwnPrompts.refusal(model) is None
    model.selfcheck = None
    assert AttentionEntropy.refusal(model) is None


class Learned(OnPrompt, name="learned"):
    """L.

    Definition: d.
    Limits: l.
    Source: s.
    """

    path: str = ""

    def artifact(self, model):
        """Its path stands for the hash of what is there."""
        return self.path or None

    def needs(self, model, tokens):
        """Nothing."""
        return ()

    def analyse(self, observation):
        """A constant."""
        return dataset(observation, one=("", 1.0, "count", (0, None)))


def test_what_learns_from_data_is_ready_when_that_is_there():
    model = tiny_model("llama")
    assert AttentionEntropy().ready(model) and not Learned().ready(model) and Learned(path="a" * 64).ready(model)


def test_a_key_names_everything_that_was_asked():
    model, other = tiny_model("llama"), tiny_model("llama", seed=1)
    tokens, more = tokenise(model, IDS), tokenise(model, Prompt.ids([2, 45]))
    edit = Ablate(Head(1, 1))
    keys = [
        AttentionEntropy().spec_key(model, tokens),
        AttentionEntropy(first=2).spec_key(model, tokens),
        AttentionEntropy().spec_key(model, more),
        AttentionEntropy().spec_key(other, tokens),
        AttentionEntropy().spec_key(model, tokens, [edit]),
        AttentionEntropy().spec_key(model, tokens, [Ablate(Head(1, 2))]),
        LogitLens().spec_key(model, tokens),
        Learned().spec_key(model, tokens),
        Learned(path="a" * 64).spec_key(model, tokens),
        OwnPrompts().spec_key(model, tokens),
    ]
    assert len(set(keys)) == len(keys) and all(len(key) == 64 for key in keys)
    assert keys[0] == AttentionEntropy(first=1).spec_key(tiny_model("llama"), tokenise(model, IDS))
    assert keys[4] == AttentionEntropy().spec_key(model.edited([edit]), tokens)
    assert OwnPrompts().spec_key(model, more) == keys[-1] == OwnPrompts().spec_key(model, None)
    assert AttentionEntropy().run(model, IDS).attrs["spec_key"] == keys[0]
    assert AttentionEntropy().run(model, IDS, interventions=[edit]).attrs["spec_key"] == keys[4]
