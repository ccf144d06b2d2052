"""Continuing a prompt: greedy is the argmax, sampling follows its seed, and limits are sentences."""

import copy

import pytest

from apps.explorer.callbacks.continuation import came
from apps.explorer.engine.continuation import WRITTEN_OUT, continuation, continued, continued_text, other_tokens
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.settings import Settings
from apps.explorer.page.state import Continuing
from probes import CATALOG
from tests.tiny_models import spelling, tiny_hf, tiny_model
from workbench import wrap
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
    assert cut.ids == greedy and cut.ending == ""  # as many as were asked for
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


def test_other_tokens_of_the_same_text_are_said():
    assert other_tokens([1, 2], (1, 2)) == ""
    assert other_tokens([1, 2, 2], [1, 9]).endswith("than the model wrote: 2 tokens in place of 3.")
    assert other_tokens([1, 2], [1, 9]).endswith("others of 2 tokens.")


@pytest.mark.parametrize("chat", [False, True])
def test_an_answer_is_no_part_of_the_message_that_it_answers(tmp_path, chat):
    """The prompt that the page runs next is the one that the model was continuing, token by token."""
    model = wrap(tiny_hf("llama"), spelling(), name="talker")
    model.tokenizer.chat_template = "{% for message in messages %}a{{ message['content'] }}b{% endfor %}c"
    engine = Engine(
        Settings(models=("talker",), directory=tmp_path), [CATALOG.view("surprisal")], load=lambda *_: model
    )
    try:
        assert engine.hosted("talker").loading.finished.wait(60)
        request = engine.request("talker", "dea", {}, chat)
        job = engine.submit_continuation(request, 3, 0.0, 0, "me")
        assert job.finished.wait(60) and job.state == "done", job.error
        back, why = came(engine, Continuing(model="talker", job=job.id, chat=chat))
        wanted = (*request.tokens.ids, *continuation(model, request.tokens, 3))
        assert back.get("chat") == ("raw" if chat else None) and (WRITTEN_OUT in why) == chat
        now = engine.tokens("talker", back["prompt"]).ids
        assert now == wanted or (not chat and "other tokens than the model wrote" in why)
    finally:
        engine.close()
