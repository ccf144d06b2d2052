"""Sweeps: a restarted batch of edited runs gives what each run alone gives."""

import pytest
import torch

from tests.tiny_models import tiny_hf, tiny_model
from workbench import wrap
from workbench.errors import Cancelled, InputError, RefusedError
from workbench.intervene import MLP, Ablate, Head, Knockout, Patch, Steer
from workbench.models.hooks import RESID_MID, RESID_PRE, Z
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import observe
from workbench.observation.metrics import KINDS, make_metric
from workbench.observation.recording import record
from workbench.observation.sweeps import base_run, sweep, values_of

CLEAN = Prompt.ids([5, 17, 40, 23, 61, 8, 77, 30, 12, 9])
CORRUPT = Prompt.ids([5, 17, 41, 23, 60, 8, 70, 30, 41, 9])


@pytest.fixture(scope="module")
def model():
    """Four layers, so that restarting skips something."""
    return tiny_model("llama", n_layers=4)


def cells(model):
    source = record(model, CLEAN, [Z, RESID_PRE, RESID_MID])
    found = [[Patch(Z, layer, source, (-1,), (head,))] for layer in range(4) for head in range(4)]
    found += [[Patch(RESID_PRE, layer, source, (pos,))] for layer in (3, 0) for pos in (2, 9)]
    found += [[Patch(RESID_MID, 2, source, (4,))], [Ablate(Head(0, 1)), Ablate(MLP(3))], [Knockout((9,), (2,), (1, 2))]]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_batched_and_unbatched_sweeps_agree_with_plain_observation(model, kind):
    base, edits = base_run(model, CORRUPT), cells(model)
    metric = make_metric(model, base.tokens, base.logits(model), kind=kind, target="#31", against="#7")
    batched, alone = values_of(model, base, edits, metric), values_of(model, base, edits, metric, batch_tokens=1)
    torch.testing.assert_close(batched, alone, atol=1e-5, rtol=1e-4)
    assert batched.std() > 1e-3
    for index in (0, 9, 17, 20, 21, 22):
        logits = observe(model, CORRUPT, positions="all", interventions=edits[index]).logits[0]
        plain = metric.of_logits(logits[metric.needed(len(base.tokens))][None])[0]
        torch.testing.assert_close(batched[index], plain, atol=1e-5, rtol=1e-4)


def test_metrics_against_their_definitions(model):
    base = base_run(model, CLEAN)
    logits = observe(model, CLEAN, positions="all").logits[0]
    other = observe(model, CORRUPT, positions="all").logits[0]
    logs, others = logits.log_softmax(-1), other.log_softmax(-1)
    expected = {
        "logit difference": other[-1, 31] - other[-1, 7],
        "log-probability": others[-1, 31] - others[-1, 7],
        "KL": (logs[-1].exp() * (logs[-1] - others[-1])).sum(),
        "loss": -torch.stack([others[i, t] for i, t in enumerate(base.tokens.ids[1:])]).mean(),
    }
    changed = base_run(model, CORRUPT)
    for kind, value in expected.items():
        metric = make_metric(model, base.tokens, base.logits(model), kind=kind, target="#31", against="#7")
        assert changed.value(model, metric) == pytest.approx(float(value), abs=1e-5)
    alone = make_metric(model, base.tokens, base.logits(model), kind="log-probability", target="#31")
    assert changed.value(model, alone) == pytest.approx(float(others[-1, 31]), abs=1e-5)
    assert base.value(model, make_metric(model, base.tokens, base.logits(model), kind="KL")) < 1e-9


def test_repetition_is_what_followed_the_last_time(model):
    """By hand: 17 was followed by 40, and 40 by 23. A token one place back, and that at position 0, do not count."""
    prompt = Prompt.ids([5, 17, 40, 23, 61, 17, 9, 9, 40, 5])
    base = base_run(model, prompt)
    metric = make_metric(model, base.tokens, base.logits(model), kind="repetition")
    assert metric.needed(10) == [5, 8] and "2 repeated tokens" in metric.describe(model.vocabulary)
    logs = observe(model, prompt, positions="all").logits[0].log_softmax(-1)
    assert base.value(model, metric) == pytest.approx(float(logs[5, 40] + logs[8, 23]) / 2, abs=1e-5)
    with pytest.raises(InputError, match="none of whose tokens last occurred"):
        make_metric(model, tokenise(model, CLEAN), base.logits(model), kind="repetition")


def test_an_edited_base_keeps_its_edit(model):
    """The kept state already holds what was done before it; what comes later is done again."""
    noise = torch.randn(10, 32, generator=torch.manual_seed(0))
    for edit in (Steer(0, noise, hook=RESID_PRE), Ablate(Head(2, 1))):
        base = base_run(model, CLEAN, [edit])
        metric = make_metric(model, base.tokens, base.logits(model), target="#31")
        for cell in ([Ablate(Head(0, 2))], [Ablate(Head(2, 3))], [Ablate(MLP(3))]):
            plain = observe(model, CLEAN, interventions=[edit, *cell]).logits[0][0, 31]
            torch.testing.assert_close(values_of(model, base, [cell], metric)[0], plain, atol=1e-5, rtol=1e-4)


def test_cancelling_keeps_what_was_done(model):
    base = base_run(model, CORRUPT)
    metric, seen = make_metric(model, base.tokens, base.logits(model)), []

    def stop(share):
        if share > 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        for indices, values in sweep(model, base, cells(model), metric, batch_tokens=40, progress=stop):
            seen.append((indices, values))
    assert 2 <= len(seen) < 6
    assert torch.equal(base_run(model, CORRUPT).last, base.last)


def test_bad_metrics_are_refused(model):
    tokens = tokenise(model, CLEAN)
    logits = torch.zeros(96)
    for options in ({"kind": "accuracy"}, {"target": "#96"}, {"target": "#3", "against": "#3"}):
        with pytest.raises(InputError):
            make_metric(model, tokens, logits, **options)


def test_a_base_of_other_weights_is_not_edited():
    """In a notebook that goes on training between the base and the sweep, or in the middle of it."""
    hf = tiny_hf("llama", n_layers=3)
    live = wrap(hf, None, name="live")
    base = base_run(live, CORRUPT)
    metric = make_metric(live, base.tokens, base.logits(live))
    found = sweep(live, base, [[Ablate(Head(layer, 0))] for layer in range(3)], metric, batch_tokens=10)
    next(found)
    with torch.no_grad():
        hf.model.layers[1].mlp.down_proj.weight.mul_(2)
    with pytest.raises(RefusedError, match="weights of live that were changed"):
        next(found)
