"""Parameters that mean nothing beside the others are named: what was measured would be read as if of them."""

import pytest

from probes import (
    CATALOG,
    ActivationPatching,
    ActiveDormant,
    CausalCheck,
    CausalTracing,
    ChangeAndSee,
    CircuitEdges,
    CircuitEvaluation,
    EdgeRankings,
    FlowRoutePart,
    HeadSurvey,
    TokenErasureAccuracy,
    TrainingTimeline,
)
from tests.tiny_models import spelling, tiny_hf
from workbench import observe, wrap

CLEAN, CORRUPT = "Ann met Bob; Bob thanked", "Ann met Bob; Ann thanked"


@pytest.fixture(scope="module")
def model():
    """A small random model that spells."""
    return wrap(tiny_hf("llama"), spelling(), name="tiny")


@pytest.mark.parametrize(
    ("asked", "named"),
    [
        (ChangeAndSee(toward="q", by=3.0), {"by", "toward"}),
        (ChangeAndSee(how="scale", by=3.0, giver=CORRUPT), {"giver"}),
        (ChangeAndSee(how="steer", toward="q", by=3.0), set()),
        (ChangeAndSee(how="swap", giver=CORRUPT, origin=2), {"origin"}),
        (ChangeAndSee(how="swap", giver=CORRUPT, origin=2, units="L1 pos 5"), set()),
        (ActivationPatching(pos=-2), {"pos"}),
        (ActivationPatching(pos=-2, site="v"), set()),
        (CausalCheck(pos=3, metric="loss"), {"pos"}),
        (CausalCheck(pos=3, metric="KL"), set()),
        (CausalTracing(window=3), {"window"}),
        (CausalTracing(window=3, restore="mlp_out"), set()),
        (FlowRoutePart(neuron=3, sublayer="attention"), {"sublayer"}),
        (HeadSurvey(metric="KL"), {"metric"}),
        (HeadSurvey(metric="KL", n_prompts=9, on="prompts"), {"n_prompts"}),
        (CircuitEvaluation(pairs=3), {"pairs"}),
        (CircuitEvaluation(pairs=3, task="indirect object"), set()),
        (CircuitEdges(prompts=3), {"prompts"}),
        (EdgeRankings(selection="calibrated", refill=False), {"refill"}),
        (TrainingTimeline(seeds=5, clamp="L0H0 previous-token"), set()),
        (TrainingTimeline(seeds=5, clamp="L0H0 previous-token", checkpoints="a1;a2"), {"seeds", "clamp"}),
        (ActiveDormant(ablate="L1H0", leading=2, random_heads=3), {"leading"}),
        (ActiveDormant(ablate="none", ablation_texts=4, random_heads=3), {"ablation_texts", "random_heads"}),
        (TokenErasureAccuracy(kind="imported", far=True), {"far"}),
    ],
)
def test_what_is_of_another_way_is_named_and_nothing_else(asked, named):
    said = asked.passed_over()
    assert {name for name in asked.values() if f"{name}={asked.values()[name]!r} was not used" in said} == named
    assert said.count("was not used") == len(named)


def test_defaults_are_nobodys_wish():
    for view in CATALOG.views:
        asked = view.analysis()
        assert set(asked.idle()) <= set(asked.values())
        assert asked.passed_over() == ""


def test_a_result_says_it_and_has_the_numbers_without(model):
    plain = CausalCheck(units="L0H1", metric="loss", peers=3).run(model, CLEAN)
    asked = CausalCheck(units="L0H1", metric="loss", peers=3, pos=4).run(model, CLEAN)
    assert (
        asked.attrs["summary"]
        == f"{plain.attrs['summary']} pos=4 was not used: it belongs to a metric of one position."
    )
    assert float(asked["effect"]) == float(plain["effect"])


def test_what_is_said_of_a_target_is_said_of_several_prompts_too(model):
    others = f"{CORRUPT}|Bob met Ann; Bob thanked"
    letters = [chr(number) for number in range(ord("a"), ord("z") + 1)]
    likely = observe(model, CLEAN).log_probs[0][-1]
    target = min(letters, key=lambda letter: float(likely[model.vocabulary.token(letter)]))
    one, many = (
        CausalCheck(units="L0H1", target=target, peers=3, others=some).run(model, CLEAN).attrs["summary"]
        for some in ("", others)
    )
    taken = f"{target!r} was taken as typed"
    assert taken in one and taken in many
    assert "of the 2 prompts this is to be said" in many and "this is to be said" not in one
    unlike = CausalCheck(units="L0H1", target="q", metric="KL", peers=3, others=others).run(model, CLEAN)
    assert unlike.attrs["summary"].count("The metric 'KL' is of no target: 'q' was not used.") == 1


def test_of_several_prompts_each_says_what_was_measured_of_it(model):
    """Where no target is named it is the model's own token, another one of each prompt."""
    texts = [f"{name} met Bob; Bob thanked" for name in ("Ada", "Eve", "Ida", "Una", "Zoe", "Mia")]
    own = [model.vocabulary.string(int(row[0].argmax())) for row in observe(model, texts).logits]
    survey = HeadSurvey(on="prompts", prompts="|".join(texts)).run(model)
    check = CausalCheck(units="L0H1", peers=3, others="|".join(texts)).run(model, CLEAN)
    for result in (survey, check):
        assert result["measured"].values.tolist() == [f"log-probability of {token!r}" for token in own]
        assert all(text in shown for text, shown in zip(texts, result["prompt_text"].values, strict=True))
    assert "measured" not in CausalCheck(units="L0H1", peers=3).run(model, CLEAN)
    longer = CausalCheck(units="L0H1", peers=3, others="|".join(texts), target=" Bob", metric="log-probability")
    shown = longer.run(model, CLEAN)["prompt_text"].values  # a target of several tokens is no part of a prompt
    assert shown.tolist() == check["prompt_text"].values.tolist()
