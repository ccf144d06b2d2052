"""Continuing a prompt: greedy is the argmax, sampling follows its seed, and limits are sentences."""

import copy

import pytest

from apps.explorer.engine.continuation import continuation, continued, continued_text
from tests.tiny_models import spelling, tiny_model
from workbench.errors import Cancelled, InputError
from workbench.models.prompt import Prompt, Vocabulary, tokenise
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


def ending(model, ids, n, **named):
    """Why a continuation ends where `named` are the end tokens that generation config, config and tokenizer have."""
    hf = model.adapter.hf_model
    hf.generation_config.eos_token_id, hf.config.eos_token_id = named.get("generation"), named.get("config")
    tokenizer = spelling()
    tokenizer.eos_token = named.get("tokenizer")
    held = copy.copy(model)
    held.tokenizer, held.vocabulary = tokenizer, Vocabulary(tokenizer, model.sizes.d_vocab)
    return continued(held, tokenise(held, Prompt.ids(ids)), n)


def test_it_stops_at_any_end_token_and_says_at_which():
    model = tiny_model("llama")
    greedy = continuation(model, tokenise(model, Prompt.ids([3, 4, 5])), 6)
    first = {token: greedy.index(token) for token in greedy}
    at = max(first, key=first.get)
    letter = spelling().decode([at])
    for named in ({"generation": [95, at]}, {"config": at}, {"tokenizer": letter}, {"generation": 95, "config": at}):
        found = ending(model, [3, 4, 5], 6, **named)
        assert found.ids == greedy[: first[at]], named
        assert found.ending == f"The model ended the text with {letter!r}."
    cut = ending(model, [3, 4, 5], 6)
    assert cut.ids == greedy and "cut after 6 tokens" in cut.ending
    n_ctx = model.sizes.n_ctx
    assert f"context of {n_ctx}" in ending(model, [3] * (n_ctx - 2), 8).ending


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
