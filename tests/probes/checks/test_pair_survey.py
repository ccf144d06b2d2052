"""The survey of heads and MLPs on pairs: what is replaced, beside what, and how often nothing is called something."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
import xarray as xr

from probes.checks import pair_survey as survey
from probes.checks.pair_survey import DIRECTIONS, PromptsOfPair, pair_survey
from probes.circuits.graph.known import KNOWN
from tests.tiny_models import tiny_model
from workbench.errors import RefusedError
from workbench.intervene import MLP, Ablate, Attention, Head
from workbench.loading.pretrained import wrap
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer
from workbench.models.prompt import Prompt, tokenise
from workbench.models.shared_prefix import linear_layers
from workbench.models.target import Target
from workbench.observation import observe, run
from workbench.observation.metrics import Metric
from workbench.observation.recording import record
from workbench.observation.sweeps import sweep


def pairs(model, n, seed=0, answers=None):
    """Random prompts that differ in one token; the answers random, or always the same."""
    random, found = np.random.default_rng(seed), []
    for _ in range(n):
        row = random.integers(1, 90, 7)
        other = row.copy()
        other[3] = 1 + (row[3] + 5) % 89
        clean, corrupt = (tokenise(model, Prompt.ids(one.tolist())) for one in (row, other))
        answer, wrong = answers or random.choice(90, 2, replace=False).tolist()
        found.append(PromptsOfPair(clean, corrupt, Metric("logit difference", Target.one(answer), Target.one(wrong))))
    return found


def test_effects_equal_plain_passes_with_the_unit_of_the_other_prompt():
    model = tiny_model("llama")
    some = pairs(model, 6)
    *_, result = pair_survey(model, some)
    effects = {Head(1, 2): [], MLP(0): []}
    for pair in some:
        value = lambda edits, pair=pair: float(
            pair.metric.of_logits(observe(model, pair.clean, interventions=edits).logits[0][-1:][None])[0]
        )
        for unit, found in effects.items():
            found.append(value([Ablate(unit, "resample", record(model, pair.corrupt, [unit.hook]))]) - value([]))
    # float32 of two ways through the same sums: 1e-6 seen
    assert float(result["effect"][1, 2]) == pytest.approx(np.mean(effects[Head(1, 2)]), abs=1e-5)
    assert float(result["mlp_effect"][0]) == pytest.approx(np.mean(effects[MLP(0)]), abs=1e-5)
    assert (result["n_controls"] == 0).all() and DIRECTIONS > 1  # 8 heads: none has 19 others


@pytest.mark.parametrize("kind", ["gpt2", "neox"])
def test_what_lies_in_front_of_the_difference_is_computed_once(kind, monkeypatch):
    """Of seven positions the prompts differ from the third on: linear layers need 4 of every run, and 3 once."""
    model, taken, asked = tiny_model(kind), [0], []
    some = pairs(model, 6)
    spy = lambda model, base, cells, *rest, **more: (asked.extend(cells), sweep(model, base, cells, *rest, **more))[1]
    monkeypatch.setattr(survey, "sweep", spy)
    *_, shared = pair_survey(model, some)
    assert {edit.positions for (edit,) in asked if isinstance(edit, Ablate)} == {(3, 4, 5, 6)}
    assert not any(edit.direction[:3].any() for (edit,) in asked if not isinstance(edit, Ablate))
    for layer in linear_layers(model.adapter.blocks):

        def counted(given, forward=layer.forward):
            taken[0] += given[..., 0].numel()
            return forward(given)

        monkeypatch.setattr(layer, "forward", counted)
    *_, result = pair_survey(model, some)
    monkeypatch.setattr(run, "sharing", lambda layers, here: nullcontext())
    half, taken[0] = taken[0], 0
    *_, whole = pair_survey(model, some)
    assert half < 0.7 * taken[0]  # 4 of 7, and 3 of 7 for one row of 40; recordings are of whole prompts
    for name in ("effect", "mlp_effect", "control_effect", "mlp_control_effect"):
        xr.testing.assert_allclose(result[name], whole[name], rtol=1e-4, atol=1e-5)  # float32 sums in another order
        xr.testing.assert_equal(result[name], shared[name])


def test_heads_that_have_enough_others_are_held_against_them():
    torch.manual_seed(0)
    model = wrap(ToyTransformer(ToyConfig(2, 24, 48, 4, 96, 48)), None, name="many-heads")
    *_, result = pair_survey(model, pairs(model, 6), caliper=50.0)
    assert int(result["n_controls"].min()) >= 19 and "mlp_effect" not in result
    others = (result["effect"].sum() - result["effect"]) / 47
    np.testing.assert_allclose(result["contrast"], result["effect"] - others, atol=1e-6)


def test_heads_whose_attention_is_silenced_are_as_loud_as_none():
    """They were taken for others as loud, and lowered what controls do."""

    def many():
        torch.manual_seed(0)
        return ToyTransformer(ToyConfig(2, 24, 48, 4, 96, 48))

    toy = many()
    toy.blocks[1].W_O.data.zero_()
    by_hand, model = wrap(toy, None, name="by hand"), wrap(many(), None, name="many-heads")
    *_, expected = pair_survey(by_hand, pairs(by_hand, 6), caliper=50.0)
    *_, plain = pair_survey(model, pairs(model, 6), caliper=50.0)
    *_, result = pair_survey(model.edited([Ablate(Attention(1))]), pairs(model, 6), caliper=50.0)
    for name in ("effect", "control_effect", "n_controls"):
        np.testing.assert_allclose(result[name], expected[name], atol=1e-6)
    assert (plain["n_controls"][0] == 47).all() and (result["n_controls"][0] == 23).all()


def test_the_heads_of_a_known_circuit_matter():
    known = KNOWN["induction"]()
    some = [PromptsOfPair(pair.clean, pair.corrupt, pair.metric) for pair in known.pairs]
    *_, result = pair_survey(known.model, some)
    assert np.argwhere(result["matters"].values == 1).tolist() in ([[0, 0], [1, 0]], [[1, 0]])
    change = np.mean([
        float(p.metric.of_logits(observe(known.model, p.corrupt).logits[0][-1:][None])[0])
        - float(p.metric.of_logits(observe(known.model, p.clean).logits[0][-1:][None])[0]) for p in some
    ])  # fmt: skip
    # L1H0 alone writes into the prediction, so that replacing it is the counterfactual's whole answer
    assert float(result["effect"][1, 0]) == pytest.approx(change, abs=1e-4)


def test_too_few_pairs_are_refused_and_a_pair_twice_counts_once():
    model = tiny_model("gpt2")
    with pytest.raises(RefusedError, match="5 different pairs, whose smallest p is"):
        next(pair_survey(model, [*pairs(model, 5), *pairs(model, 5)]))


@pytest.mark.slow
def test_random_weights_name_a_unit_once_in_twenty():
    named = []
    for seed in range(60):
        model = tiny_model("llama", seed=seed)
        *_, result = pair_survey(model, pairs(model, 8, seed), seed=seed)
        named.append(bool((result["contrast_p"] <= 0.05).any() or (result["mlp_contrast_p"] <= 0.05).any()))
    assert np.mean(named) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)
