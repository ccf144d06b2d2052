"""What is refused before a study starts is what it would refuse itself, in the same sentence."""

import pytest

from probes import (
    ActivationPatching,
    AttentionKnockout,
    AttributionPatching,
    CausalCheck,
    CausalTracing,
    ChangeAndSee,
    CircuitEdges,
    CircuitEvaluation,
)
from tests.tiny_models import spelling, tiny_hf
from workbench import wrap
from workbench.errors import InputError
from workbench.models.prompt import tokenise

TEXT = "ab cd ab"


@pytest.fixture(scope="module")
def model():
    return wrap(tiny_hf("llama"), spelling(), name="speller")


@pytest.mark.parametrize(
    "study",
    [
        CausalCheck(units="L9H0"),
        CausalCheck(units="L0H0 L0 mlp"),
        CausalCheck(method="resample"),
        CausalCheck(method="resample", corrupt="ab"),
        CausalCheck(units="L1 pos 90"),
        CausalCheck(target="#999"),
        ChangeAndSee(how="swap"),
        ChangeAndSee(how="steer"),
        ChangeAndSee(units="L0H9"),
        ChangeAndSee(units="L1 pos 3", how="swap", giver="ab", origin=7),
        ActivationPatching(corrupt="ab"),
        ActivationPatching(target="#999"),
        AttributionPatching(corrupt=TEXT),
        CircuitEvaluation(corrupt="ab"),
        CircuitEdges(target="#999"),
        AttentionKnockout(subject="xyz"),
        CausalTracing(subject="xyz"),
    ],
    ids=str,
)
def test_a_study_is_refused_beforehand_as_it_would_refuse_itself(model, study):
    with pytest.raises(InputError) as before:
        study.fits(model, tokenise(model, TEXT))
    with pytest.raises(InputError) as after:
        study.run(model, TEXT)
    assert str(before.value) == str(after.value)


@pytest.mark.parametrize("study", [CausalCheck(), ChangeAndSee(), ActivationPatching(), AttentionKnockout(),
                                   CausalTracing(), CircuitEvaluation(), CircuitEdges()], ids=str)  # fmt: skip
def test_the_usual_parameters_fit(model, study):
    study.fits(model, tokenise(model, TEXT))
