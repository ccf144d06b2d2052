"""The two-parameter model: it is what attention would do, its gradient is that of its loss, and it learns as told."""

import numpy as np
import pytest

from probes.formation.findings.abrupt_learning import ABOUT, CURVES, AbruptLearning, beside_figure
from probes.formation.findings.conditions import table
from probes.formation.findings.two_parameters import TwoParameters
from workbench.errors import InputError
from workbench.loading.toys.recipes import asked


def by_attention(model, point):
    """The loss by two layers of attention over an explicit context of one-hot items and labels."""
    beta, alpha, xi = point
    n, copies = model.pairs, model.pairs // model.classes
    item = np.eye(model.classes)[np.arange(n) // copies]  # class 0 is the query's
    held = []
    for label in range(n):
        scores = np.zeros(n + 1)  # all items, and itself
        scores[label] = beta
        share = np.exp(scores) / np.exp(scores).sum()
        held.append(share[:n] @ item)
    scores = alpha * np.array(held)[:, 0]
    pattern = np.exp(scores) / np.exp(scores).sum()
    logits = np.zeros(model.labels)
    np.add.at(logits, np.arange(n) // copies, xi * pattern)
    return np.log(np.exp(logits).sum()) - logits[0]


@pytest.mark.parametrize("shape", [(8, 8, 20), (6, 3, 7), (10, 2, 5), (4, 4, 4)])
def test_the_loss_is_that_of_attention_and_the_gradient_that_of_the_loss(shape):
    model, random = TwoParameters(*shape), np.random.default_rng(3)
    for point in random.normal(0, 2, (5, 3)):
        assert model.loss(point) == pytest.approx(by_attention(model, point), rel=1e-9)
        numeric = [(model.loss(point + h) - model.loss(point - h)) / 2e-5 for h in 1e-5 * np.eye(3)]
        np.testing.assert_allclose(model.gradient(point), numeric, rtol=1e-4, atol=1e-8)  # of differences of 1e-5


def test_only_the_readout_moves_at_first_and_nothing_where_labels_are_as_many_as_classes():
    """The paper's flat start: the gradient at 0 is 1 / labels - 1 / classes along the readout alone."""
    np.testing.assert_allclose(TwoParameters(9, 3, 12).gradient([0, 0, 0]), [0, 0, 1 / 12 - 1 / 3], atol=1e-15)
    np.testing.assert_allclose(TwoParameters(9, 9, 9).gradient([0, 0, 0]), 0, atol=1e-15)


def test_it_guesses_among_the_context_and_then_falls_to_nothing():
    """A slow start to log(classes), which the readout alone reaches, then the cliff. The half-way step is that of the
    curve: measured on steps 1 % apart."""
    model, steps = TwoParameters(10, 10, 40), np.concatenate([[0], np.geomspace(1, 1e4, 900)])
    losses = model.along(steps)
    assert losses[0] == pytest.approx(np.log(40), abs=0.01) and losses[-1] < 1e-3
    assert (np.diff(losses) < 1e-9).all()
    change = model.change_step()
    assert np.interp(change, steps, losses) == pytest.approx(np.log(10) / 2, rel=0.1)
    at = lambda level: steps[np.argmax(losses < level)]
    slow, fall = at(1.05 * np.log(10)), at(0.1 * np.log(10)) - at(0.9 * np.log(10))
    assert fall < slow < change < at(0.1 * np.log(10))


def test_when_it_changes_depends_on_labels_and_pairs_as_in_the_paper():
    """Later with more pairs to choose among; far later, by tens of times, with no more labels than classes (the paper:
    not learnt); earlier with copies of the query's class."""
    when = lambda *shape: TwoParameters(*shape).change_step()
    assert when(5, 5, 30) < when(10, 10, 30) < when(20, 20, 30)
    assert when(10, 10, 10) > 20 * when(10, 10, 20) > 20 * when(10, 10, 80)
    assert when(10, 2, 20) < when(10, 5, 20) < when(10, 10, 20)


@pytest.mark.parametrize(("shape", "later"), [((6, 3, 5), 3), ((8, 4, 10), 4)])
def test_descent_changes_some_updates_after_the_flow(shape, later):
    """Which is why the sentence says about."""
    model, point, updates = TwoParameters(*shape), np.full(3, 0.01), 0
    while model.loss(point) > np.log(shape[1]) / 2:
        point, updates = point - model.gradient(point), updates + 1
    assert 0 < updates - model.change_step() < later


@pytest.mark.parametrize("shape", [(8, 1, 8), (8, 9, 20), (8, 8, 7)])
def test_contexts_that_cannot_be_are_refused(shape):
    with pytest.raises(InputError, match="from 2 classes"):
        TwoParameters(*shape)


def test_each_condition_of_the_finding_has_its_model_beside_it():
    """As many classes in the context as pairs over copies; none where the query's class is alone there, or absent."""
    recipes = AbruptLearning(classes="16", burstiness="1 2 8 0").recipes(asked("toy:gaussian-classes,labels=10").recipe)
    curve = {step: {"loss": 1.0, "accuracy_in_context": 0.1, "accuracy_in_weights": 0.2} for step in (0, 40, 4000)}
    found = {(name, 0): {"curve": curve} for name in recipes}
    result = AbruptLearning().beside(table(found, list(recipes), [0], ABOUT, CURVES), recipes)
    one, two = TwoParameters(8, 8, 10), TwoParameters(8, 4, 10)
    np.testing.assert_allclose(
        result["model_change"].values, [one.change_step(), two.change_step(), np.nan, np.nan], rtol=1e-6
    )
    right = result["model_probability"].sel(condition="16 classes, 2 copies")
    assert right[0] == pytest.approx(1 / 10, abs=0.01) and right.sel(step=4000) > 0.99
    assert f"changes at about update {one.change_step():.0f} with 16 classes, 1 copy" in AbruptLearning().said(result)
    figure = beside_figure(result)
    assert {len(trace.x) for trace in figure.data} == {3} and len(figure.data) == 8
