"""Continuing a prompt: greedy is the argmax, sampling follows its seed, and limits are sentences."""

import pytest

from apps.explorer.engine.continuation import continuation, continued_text
from tests.tiny_models import tiny_model
from workbench.errors import Cancelled, InputError
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import observe


@pytest.fixture(scope="module")
def model():
    return tiny_model("gpt2")


def test_greedy_takes_the_most_probable_token(model):
    tokens = tokenise(model, Prompt.ids([3, 4, 5]))
    added = continuation(model, tokens, 3)
    ids = [3, 4, 5]
    for token in added:
        assert token == int(observe(model, Prompt.ids(ids)).logits[0][-1].argmax())
        ids.append(token)
    assert len(added) == 3


def test_sampling_follows_its_seed(model):
    tokens = tokenise(model, Prompt.ids([3, 4, 5]))
    one = continuation(model, tokens, 8, temperature=1.5, seed=1)
    assert one == continuation(model, tokens, 8, temperature=1.5, seed=1)
    assert one != continuation(model, tokens, 8, temperature=1.5, seed=2)


def test_it_stops_where_the_context_is_full(model):
    tokens = tokenise(model, Prompt.ids([3] * (model.sizes.n_ctx - 2)))
    assert len(continuation(model, tokens, 8)) == 2


def test_limits_and_cancelling(model):
    tokens = tokenise(model, Prompt.ids([3]))
    for n, temperature in ((0, 0.0), (65, 0.0), (1, -1.0), (1, float("nan"))):
        with pytest.raises(InputError):
            continuation(model, tokens, n, temperature)

    def stop(share):
        raise Cancelled()

    with pytest.raises(Cancelled):
        continuation(model, tokens, 3, progress=stop)
    assert continued_text(model, "3 4", [5, 6]) == "3 4 5 6"
