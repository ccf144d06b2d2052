"""Targets: one token, several, or any of a set."""

import copy
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes import AttentionKnockout
from probes.checks.claims import asked
from tests.long_run import examples
from tests.tiny_models import spelling, tiny_hf
from tests.workbench.models.test_vocabulary import of_moves
from workbench.errors import InputError
from workbench.intervene import Ablate, Head
from workbench.loading.pretrained import wrap
from workbench.models.prompt import tokenise
from workbench.models.target import Target, likelier, need_one_token, shared_start, target_of
from workbench.models.vocabulary import Vocabulary
from workbench.observation import observe
from workbench.observation.metrics import followed_by, going_on, make_metric
from workbench.observation.sweeps import base_run, values_of

VOCABULARY = Vocabulary(spelling(), 96)
A, B, C = (ord(letter) - 31 for letter in "abc")


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("a", ((A,),)),
        ("#5", ((5,),)),
        ("#5 #6", ((5, 6),)),
        ("abc", ((A, B, C),)),
        ('["a", "#9", "bc"]', ((A,), (9,), (B, C))),
        ('["a", "a"]', ((A,),)),
        ('["#1"]', ((1,),)),
        ("[a", ((ord("[") - 31, A),)),  # no list: text
        ("[1]", (tuple(ord(c) - 31 for c in "[1]"),)),  # a list of no texts: text
    ],
)
def test_what_a_text_stands_for(text, members):
    target = target_of(VOCABULARY, text)
    assert target.members == members and target_of(VOCABULARY, target.written) == target


@settings(max_examples=examples(100), deadline=None)
@given(st.text(max_size=12) | st.lists(st.text(max_size=4), max_size=4).map(json.dumps))
def test_any_text_is_a_target_or_a_sentence(text):
    try:
        target = target_of(VOCABULARY, text)
    except InputError:
        return
    assert target_of(VOCABULARY, target.written) == target
    assert all(0 <= token_id < 96 for member in target.members for token_id in member)
    assert target.describe(VOCABULARY) and isinstance(likelier(VOCABULARY, text, torch.zeros(96)), str)


def test_a_form_that_would_be_no_target_is_not_offered():
    """Moved spaces may make one member begin another."""
    for text in ('["a", "  ab"]', '["7", "  7 8"]'):
        assert target_of(VOCABULARY, text) and likelier(VOCABULARY, text, torch.zeros(96)) == ""


def test_targets_in_words():
    assert target_of(VOCABULARY, "a").describe(VOCABULARY) == "'a'"
    assert target_of(VOCABULARY, "ab").describe(VOCABULARY) == "'ab' (2 tokens, summed)"
    assert target_of(VOCABULARY, '["a", "b"]').describe(VOCABULARY) == "any of 2 ('a', 'b')"


def test_a_set_that_is_none_is_a_text():
    assert target_of(VOCABULARY, 30_000 * "[").length == 30_000  # more than a reader of JSON goes into


def test_targets_that_make_no_sense_are_refused():
    for bad, said in (('["a", "ab"]', "begins another"), ("#96", "0 to 95"), ("", "empty target")):
        with pytest.raises(InputError, match=said):
            target_of(VOCABULARY, bad)
    with pytest.raises(InputError, match="first token 'a'"):
        need_one_token(VOCABULARY, "ab", "a lens")
    assert shared_start([target_of(VOCABULARY, t) for t in ("abc", "ab", "c")], VOCABULARY) == (A, B)
    with pytest.raises(InputError, match="one run"):
        shared_start([target_of(VOCABULARY, t) for t in ("abc", "bb")], VOCABULARY)


@pytest.fixture(scope="module")
def hf():
    """A Hugging Face model and ours."""
    plain = tiny_hf("gpt2")
    return plain, wrap(plain, spelling(), name="tiny-spelling")


def log_prob(plain, ids, following):
    """log p(following | ids) by plain Hugging Face passes, one a token."""
    total = 0.0
    with torch.no_grad():
        for token_id in following:
            total += float(plain(torch.tensor([ids])).logits[0, -1].double().log_softmax(-1)[token_id])
            ids = [*ids, token_id]
    return total


def value(model, prompt, kind, target, against=""):
    """A metric as a study measures it."""
    tokens, more = tokenise(model, prompt), going_on(model, kind, target, against)
    base = base_run(model, followed_by(model, tokens, more))
    logits = base.logits(model, -1 - len(more))
    return base.value(model, make_metric(model, base.tokens, logits, kind=kind, target=target, against=against))


@pytest.mark.parametrize("metric", ["KL", "loss", "repetition"])
def test_a_metric_of_no_target_says_that_one_was_not_used(hf, metric):
    study = AttentionKnockout(metric=metric, subject="abc", target="q", against="z", window=1)
    found, bare = (study.replaced(**other).run(hf[1], "abcdabce") for other in ({}, {"target": "", "against": ""}))
    assert f"'{metric}' is of no target: 'q' and 'z' were not used" in found.attrs["summary"]
    assert "not used" not in bare.attrs["summary"] and found.equals(bare)
    assert [found.attrs[name] for name in ("target", "against", "target_ids", "against_ids")] == [""] * 4
    claim = asked(found, {})
    assert claim["metric"] == metric and not claim.get("against_ids")


def test_the_effect_on_a_piece_of_a_character_is_that_of_its_id(default_model):
    """With plain hooks on Hugging Face's model: zero z of L18H6 at the input of o_proj, log-probability at the end."""
    hf, tokens = copy.deepcopy(default_model.adapter.hf_model), tokenise(default_model, "東京は日本の")
    hf.set_attn_implementation("eager")
    ids = torch.tensor([tokens.ids])

    def log_probs():
        with torch.no_grad():
            return hf(ids, use_cache=False).logits[0, -1].double().log_softmax(-1)

    def without(module, given):
        z = given[0].clone()
        z[..., 6 * 64 : 7 * 64] = 0
        return (z,)

    intact = log_probs()
    hook = hf.model.layers[18].self_attn.o_proj.register_forward_pre_hook(without)
    effect = (log_probs() - intact)[int(intact.argmax())]
    hook.remove()
    base = base_run(default_model, tokens)
    for target in ("", "#11100", default_model.vocabulary.string(11100)):
        kind = {"kind": "log-probability", "target": target}
        metric = make_metric(default_model, tokens, base.logits(default_model), **kind)
        edited = values_of(default_model, base, [[Ablate(Head(18, 6))]], metric)[0]
        ours = float(edited) - base.value(default_model, metric)
        # two float32 passes whose logits are about 20: 1e-4 is 1 % of the effect
        assert ours == pytest.approx(float(effect), abs=1e-4) == pytest.approx(-0.01007, abs=1e-4)


def test_probabilities_are_those_of_plain_passes(hf):
    plain, model = hf
    ids = list(tokenise(model, "What is").ids)
    of = lambda following: log_prob(plain, ids, following)
    # float32 passes of a tiny model, read out through another path: 1e-4 holds for every kind
    assert value(model, "What is", "log-probability", "a") == pytest.approx(of([A]), abs=1e-4)
    assert value(model, "What is", "log-probability", "cab") == pytest.approx(of([C, A, B]), abs=1e-4)
    pooled = torch.tensor([of([A]), of([B, C]), of([B, A])]).logsumexp(0).item()
    assert value(model, "What is", "log-probability", '["a", "bc", "ba"]') == pytest.approx(pooled, abs=1e-4)
    gap = of([C, A, B]) - of([B])
    for kind in ("logit difference", "log-probability"):  # what both share cancels
        assert value(model, "What is", kind, "cab", "b") == pytest.approx(gap, abs=1e-4)
    sets = torch.tensor([of([A]), of([C])]).logsumexp(0).item() - of([B])
    assert value(model, "What is", "logit difference", '["a", "c"]', "b") == pytest.approx(sets, abs=1e-4)


def test_where_several_tokens_cannot_be_measured(hf):
    _, model = hf
    with pytest.raises(InputError, match="log-probability"):
        value(model, "What is", "logit difference", "ab")
    tokens = tokenise(model, "What is")
    logits = base_run(model, tokens).logits(model)
    with pytest.raises(InputError, match="last position"):
        make_metric(model, tokens, logits, kind="log-probability", target="ab")
    with pytest.raises(InputError, match="twice"):
        value(model, "What is", "log-probability", '["a", "b"]', "b")
    with pytest.raises(InputError, match="Shorten"):
        value(model, "a" * 126, "log-probability", "abcd")


def test_the_likelier_form_is_named():
    log_probs = torch.full((96,), -9.0).index_put((torch.tensor([1, A]),), torch.tensor([-1.0, -2.5]))
    assert likelier(VOCABULARY, "a", log_probs) == (
        "'a' was taken as typed (-2.50 nats); ' a', with a space in front, begins with a likelier token here "
        "(-1.00 nats)."
    )
    several = likelier(VOCABULARY, "ab", log_probs)  # -2.50 is not what the study measures of both
    assert several.startswith("'ab' was taken as typed (by its first token -2.50 nats); ' ab', with a space in front, ")
    assert several.endswith("begins with a likelier token here (-1.00 nats).")
    shorter = likelier(VOCABULARY, " a", -log_probs)
    assert shorter.endswith("'a', without a space in front, is likelier here (2.50 nats).")
    assert likelier(VOCABULARY, " a", log_probs) == "" and likelier(VOCABULARY, f"#{A}", log_probs) == ""
    assert "without a space" in likelier(VOCABULARY, " a", -log_probs)
    assert "The set from 'a' on" in likelier(VOCABULARY, '["a", "b"]', log_probs)
    assert likelier(VOCABULARY, " ", log_probs) == ""


def test_every_study_takes_targets_of_several_tokens_or_says_why_not(hf):
    from probes import (
        ActivationPatching,
        AttentionKnockout,
        AttributionPatching,
        CausalCheck,
        CausalTracing,
        CircuitEdges,
        CircuitEvaluation,
        DirectLogitAttribution,
        FlowRouteFaithfulness,
        LogitLens,
    )

    plain, model = hf
    ids = list(tokenise(model, "What is").ids)
    wanted = log_prob(plain, ids, [A, B])
    asked = {"metric": "log-probability", "target": "ab"}
    for study in (
        ActivationPatching(corrupt="Whet is", **asked),
        AttributionPatching(corrupt="Whet is", checked=0, **asked),
        AttentionKnockout(**asked),
        CausalTracing(draws=1, subject="hat", **asked),
    ):
        result = study.run(model, "What is")
        assert float(result["clean"]) == pytest.approx(wanted, abs=1e-4), study.name
        assert "2 tokens, summed" in result.attrs["metric"] and result.attrs["target_ids"] == f"#{A} #{B}"
    checked = CausalCheck(units="L0H1", **asked).run(model, "What is")
    assert "'ab' (2 tokens, summed) at the last position" in checked.attrs["metric"]
    for single in (
        CircuitEvaluation(corrupt="Whet is", **asked),
        CircuitEdges(**asked),
        DirectLogitAttribution(target="ab"),
        FlowRouteFaithfulness(target="ab"),
        LogitLens(target="ab"),
    ):
        with pytest.raises(InputError, match=r"one token|single tokens"):
            single.run(model, "What is")


def test_a_byte_is_handed_on_by_its_id(default_model):
    from probes import DirectLogitAttribution
    from probes.circuits.direct_logit_attribution import head_claim

    token = next(i for i in tokenise(default_model, "Łucja 서울").ids if "⟨" in default_model.vocabulary.string(i))
    result = DirectLogitAttribution(target=default_model.vocabulary.string(token)).run(default_model, "Łucja 서울")
    claim = head_claim(result, {"layer": 3, "head": 2})
    assert claim.params["target"] == f"#{token}" and "⟨" in result.attrs["target"]
    assert target_of(default_model.vocabulary, claim.params["target"]) == Target.one(token)


def test_the_form_with_a_space_is_offered(default_model):
    from probes import DirectLogitAttribution

    said = DirectLogitAttribution(target="Rome").run(default_model, "The capital of Italy is").attrs["summary"]
    assert "'Rome' was taken as typed" in said and "' Rome', with a space in front, is likelier here" in said
    with pytest.raises(InputError, match="Take ' Oslo', which is one"):
        DirectLogitAttribution(target="Oslo").run(default_model, "The capital of Norway is")


def test_a_target_that_the_tokenizer_has_no_tokens_for_is_refused():
    """It stands for anything unknown, or letters of it are left out: another one would be measured."""
    spells = Vocabulary(spelling(), 96)  # whose unknown token is the space
    for unread in ("Dvořák", "é", '["a", "日"]'):
        with pytest.raises(InputError, match="which the tokenizer reads as '"):
            target_of(spells, unread)
    assert target_of(spells, " a b ").members == ((1, 66, 1, 67, 1),)
    with pytest.raises(InputError, match="the target 'e4 Qh5', which the tokenizer reads as 'e4'"):
        target_of(Vocabulary(of_moves(), 5), "e4 Qh5")
    assert target_of(spells, "#95 #0").members == ((95, 0),)


def test_a_target_in_another_case_is_read():
    from tokenizers import normalizers

    lower = spelling()
    lower.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    assert Vocabulary(lower, 96).text(target_of(Vocabulary(lower, 96), "Dvořák AAa").members[0]) == "dvorak aaa"


def test_what_stands_on_both_sides_is_named_alone():
    model = wrap(tiny_hf("llama"), spelling(), name="tiny-spelling")
    tokens, logits = tokenise(model, "abc"), torch.zeros(96)
    with pytest.raises(InputError, match="the same token 'q' twice"):
        make_metric(model, tokens, logits, target='["p", "q"]', against='["q", "r"]')


@pytest.mark.parametrize(("target", "against"), [("pq", "p"), ("p", "pq"), ('["r", "pq"]', '["s", "p"]')])
def test_what_begins_with_the_other_is_not_set_against_it(target, against):
    """log p(pq) - log p(p) is that of q behind p, whatever p is."""
    model = wrap(tiny_hf("llama"), spelling(), name="tiny-spelling")
    tokens, logits = tokenise(model, "abc"), torch.zeros(96)
    with pytest.raises(InputError, match="'p' against 'pq', which begins with it"):
        make_metric(model, tokens, logits, kind="log-probability", target=target, against=against)
    make_metric(model, tokens, logits, kind="log-probability", target="p", against="q")


def test_a_form_of_several_tokens_is_not_called_likelier_by_its_first_alone(default_model):
    """After "Der Name ist" a space comes before many things: " ü" was called likelier than "ü", by five nats less."""
    tokens = tokenise(default_model, "Der Name ist")

    def whole(text):
        found = list(default_model.vocabulary.tokens(text))
        seen = observe(default_model, [*tokens.ids, *found], positions="all").logits[0].log_softmax(-1)
        return sum(float(seen[len(tokens) - 1 + i, token]) for i, token in enumerate(found))

    note = likelier(default_model.vocabulary, "ü", observe(default_model, tokens).logits[0][-1].log_softmax(-1))
    assert whole(" ü") < whole("ü") - 1 and "' ü', with a space in front, begins with a likelier token here" in note
