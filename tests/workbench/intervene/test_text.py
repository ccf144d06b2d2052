"""Interventions in words: each text stands for the value it names, and its code makes that value."""

import pytest

import workbench
from tests.tiny_models import tiny_model
from workbench import (
    MLP,
    Ablate,
    Attend,
    Attention,
    AttentionEdge,
    AttentionKey,
    Head,
    Knockout,
    Neurons,
    measure_means,
    observe,
)
from workbench.errors import InputError
from workbench.intervene.text import MEAN_HOOKS, phrase

MODEL = tiny_model("llama")
MEANS = measure_means(MODEL, hooks=MEAN_HOOKS, n_tokens=64)
KNOWN = {
    "L1H3": Ablate(Head(1, 3)),
    "L1H3 mean": Ablate(Head(1, 3), "mean", MEANS),
    "L1H3 previous-token": Attend(Head(1, 3), "previous-token"),
    "L0H2 own-token": Attend(Head(0, 2), "own-token"),
    "L0 MLP": Ablate(MLP(0)),
    "L0 MLP mean": Ablate(MLP(0), "mean", MEANS),
    "L1 attention": Ablate(Attention(1)),
    "L1N7": Ablate(Neurons(1, (7,))),
    "L1N7 mean": Ablate(Neurons(1, (7,)), "mean", MEANS),
    "L1H3:3<-1": Ablate(AttentionEdge(1, 3, 3, 1)),
    "L1H3 key 1": Ablate(AttentionKey(1, 3, 1)),
    "3 cannot see 1": Knockout((3,), (1,), (0, 1)),
    "L1H3 3 cannot see 1": Knockout((3,), (1,), (1,), (3,)),
}


@pytest.mark.parametrize("text", KNOWN)
def test_a_text_its_value_and_its_code_are_one(text):
    said = phrase(text)
    said.check(MODEL, 5)
    assert str(said) == text
    assert said.intervention(MODEL, lambda: MEANS) == KNOWN[text]
    names = {name: getattr(workbench, name) for name in workbench.__all__}
    assert eval(said.code(), {**names, "model": MODEL, "means": MEANS}) == KNOWN[text]
    intact, changed = (observe(MODEL, [3, 5, 7, 9, 5], positions=[3], interventions=i) for i in ((), [KNOWN[text]]))
    assert (intact.logits[0] - changed.logits[0]).abs().max() > 1e-5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "L1",
        "L1H",
        "H3",
        "L1H3 median",
        "L1 MLP 3 cannot see 1",
        "L1H3,L1H2",
        " mean",
        "L1 MLP own-token",
        "L1 pos 3 mean",
        "L1H3:3<-1 mean",
        "L1H3 key 1 mean",
        f"L1N{5_000 * '3'}",
        f"{5_000 * '3'} cannot see 1",
    ],
)
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match=r"the (intervention|units)"):
        phrase(text)


@pytest.mark.parametrize(
    "text", ["L9H0", "L0H9", "L1H3:9<-1", "L0N9999", "L9 MLP", "1 cannot see 3", "0 cannot see 0", "9 cannot see 1"]
)
def test_what_is_not_there_is_refused(text):
    with pytest.raises(InputError):
        phrase(text).check(MODEL, 5)
