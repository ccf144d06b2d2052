"""Explain: a known circuit is found from a bare prompt; random weights and shuffled answers give nothing."""

import json
from collections import Counter
from dataclasses import replace
from functools import cache
from html import unescape
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from probes.circuits.direct_logit_attribution import DirectLogitAttribution
from probes.circuits.graph.known import KNOWN
from probes.circuits.graph.task_texts import PairText
from probes.circuits.graph.tasks import Pair, Task, pair_of
from probes.explain import contrasts, explain
from probes.explain.contrasts import Contrast, contrast_of, shown_text, with_ids
from probes.explain.explain import VIEW, Explain
from probes.explain.figures import pairs_table, parts_table, where_figure
from probes.explain.found import Found, behaviour_found, faithful_found, parts_found
from probes.explain.parts import Part, copying_labels, described_parts, node_of
from probes.explain.sentences import NOTHING, behaves, matters, said, unexplained
from probes.explain.steps import STEPS
from probes.explain.variants import BESIDE, COPIED, made_pairs
from tests.tiny_models import INDUCTION, KINDS, induction_toy, tiny_model
from workbench.analysis.compare import difference
from workbench.analysis.results import dataset
from workbench.errors import Cancelled, InputError
from workbench.intervene import Ablate, Attention, Scale
from workbench.models.hooks import RESID_POST, Z
from workbench.models.prompt import Prompt, tokenise
from workbench.models.target import Target
from workbench.observation.recording import record

QUICK = {"pairs": 4, "tested": 8, "wanted": 0.9}


@cache
def model():
    return induction_toy()


SHOWN = Prompt.ids(INDUCTION)


@cache
def explained():
    """Of one clean prompt alone: counterfactual, answers and pairs are made."""
    told = []
    result = Explain(**QUICK).run(model(), SHOWN, partial=told.append)
    return result, told


def test_of_a_long_prompt_the_words_that_the_answer_hangs_on_are_tried(monkeypatch):
    """Of sixteen ids the toy's answer hangs on the one behind the first 9, and on that 9: the rest is only there."""
    toy = model()
    clean = tokenise(toy, Prompt.ids([14, 3, 31, 30, 9, 27, 10, 21, 4, 12, 5, 18, 6, 7, 22, 9]))
    words = contrasts._words(toy, clean)
    assert words == list(range(1, 15))
    assert contrasts._tried(toy, clean, words, None) == words  # they are few
    monkeypatch.setattr(contrasts, "_TOKENS", 0)
    monkeypatch.setattr(contrasts, "_FEWEST", 2)
    assert contrasts._tried(toy, clean, words, None) == [4, 5]
    assert contrasts._tried(toy, clean, words, Target.one(27)) == [4, 5]
    assert contrast_of(toy, clean).differing in ((4,), (5,))


def test_from_a_bare_prompt_to_the_known_circuit():
    """... A B ... A: the answer is B; the swap of B, or of an A, is one that the circuit carries."""
    result, told = explained()
    assert unexplained(result) == ["Of what was measured here nothing is left out."]
    answer = "#11"
    assert result.attrs["target"] == answer and NOTHING not in result.attrs["summary"]
    assert ("L1H0", 1) in [(name, int(effect < 0)) for name, effect, _ in matters(result)]
    edges = {f"{a}->{b}" for a, b in zip(result["edge_source"].values, result["edge_target"].values, strict=True)}
    assert "a1.h0->logits" in edges and edges <= {*KNOWN["induction"]().edges, "input->logits"}
    assert float(result["faithfulness"]) >= 0.9 and float(result["p"]) == pytest.approx(1 / 20)
    assert abs(float(result["completeness"])) < 0.1  # hand-set: nothing else does it
    assert "L1H0" in result["part_name"].values.tolist()
    here = result.isel(component=result["part_name"].values.tolist().index("L1H0"))
    assert answer in str(here["part_raises"].item()) and "copies" in str(here["part_label"].item())
    done = [[one["step"] for one in json.loads(some.attrs["steps"]) if one["done"]] for some in told]
    assert done[:2] == [[], ["pairs"]] and all(set(a) <= set(b) for a, b in pairwise(done))
    assert all(one["done"] for one in json.loads(result.attrs["steps"])) and set(STEPS) == set(
        one["step"] for one in json.loads(result.attrs["steps"])
    )


def test_parts_of_two_circuits_are_aligned_by_their_names():
    """The first part of one circuit is another one of the next, and a head is no number to subtract."""

    def parts(*directs):
        made = [Part(layer, head, 2, -1, 0.5, ("x",), (), direct, ()) for layer, head, direct in directs]
        about = json.dumps({"analysis": "explain", "token_ids": [1]})
        return parts_found(made, {}).assign_attrs(provenance=about)

    one, other = parts((0, 1, 0.5), (1, -1, 2.0)), parts((1, -1, 5.0), (0, 1, 0.75), (3, 3, 9.0))
    change = difference(one, other)
    np.testing.assert_array_equal(change["part_direct"], [3.0, 0.25, np.nan])
    assert change["label"].values.tolist() == ["L1 MLP", "L0H1", "L3H3"] and "part_head" not in change
    assert not parts_found([], {}).sizes["component"] and "label" not in parts_table(one)
    said_of = lambda capped: parts_found([], {}, capped)["part_direct"].attrs["long_name"]
    assert said_of(True) == f"{said_of(False)}, before the soft cap"


def test_pairs_are_apart_and_none_is_the_shown_one():
    contrast = contrast_of(model(), SHOWN)
    made = made_pairs(model(), contrast, (4, 4, 8))
    splits = [made.task.train, made.task.validation, made.task.test]
    assert [len(some) for some in splits] == [4, 4, 8] and made.answers == COPIED
    prompts = [{p.clean.ids for p in some} | {p.corrupt.ids for p in some} for some in splits]
    assert not (prompts[0] & prompts[1] or prompts[0] & prompts[2] or prompts[1] & prompts[2])
    assert all(contrast.pair.clean.ids not in some for some in prompts)
    for one in made.task.test:  # renamed consistently: where shown tokens were equal, so are these
        alike = lambda a, b: [[x == y for x in a] for y in b]
        assert alike(one.clean.ids, one.clean.ids) == alike(contrast.pair.clean.ids, contrast.pair.clean.ids)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_random_weights_give_nothing(kind):
    """Prompts whose answers are given, as of a user who hopes for something: by chance they may even be right."""
    random = tiny_model(kind, n_layers=2, seed=3)
    asked = {"target": "#17", "against": "#23", **QUICK}
    result = Explain(**asked).run(random, Prompt.ids([0, 5, 9, 31, 64, 12, 9, 31]))
    assert result.attrs["summary"].startswith(NOTHING) or f" {NOTHING}" in result.attrs["summary"]
    assert "n_kept" not in result or not int(result["n_kept"])


def test_answers_of_the_wrong_way_round_give_nothing():
    """The model prefers B; asked to explain why it prefers another."""
    contrast, vocabulary = contrast_of(model(), SHOWN), model().vocabulary
    asked = {"target": contrast.pair.wrong.label(vocabulary), "against": contrast.pair.answers.label(vocabulary)}
    result = Explain(**asked, **QUICK).run(model(), SHOWN)
    assert result.attrs["summary"].startswith(NOTHING) and not behaves(result)
    assert unexplained(result) == ["No circuit was found, so nothing is explained."]


@pytest.mark.slow
def test_where_few_answers_can_be_made_the_shown_swap_stays(default_model):
    """What is true of a city is not of a town, a nation or a local: other words are swapped beside it."""
    contrast = contrast_of(default_model, "The Eiffel Tower is located in the city of")
    made = made_pairs(default_model, contrast, (6, 6, 16))
    assert made.answers == BESIDE and not made.is_short_of((6, 6, 16))
    texts = [(shown_text(default_model, one.clean), shown_text(default_model, one.corrupt)) for one in made.task.test]
    assert all(" city of" in clean and corrupt == clean.replace("city", "country") for clean, corrupt in texts)
    assert made_pairs(model(), contrast_of(model(), SHOWN), (4, 4, 8)).answers == COPIED


@pytest.mark.slow
def test_random_weights_find_nothing_at_the_stated_rate():
    """Of 40 runs at most one in twenty, and three standard errors."""
    found = []
    for seed in range(40):
        random = np.random.default_rng(seed)
        result = Explain(seed=seed, **QUICK).run(
            tiny_model("llama", seed=seed), Prompt.ids([0, *random.integers(1, 95, 7).tolist()])
        )
        found.append(NOTHING not in result.attrs["summary"])
    assert np.mean(found) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 40)


@pytest.mark.slow
def test_shuffled_answers_find_nothing_at_the_stated_rate(monkeypatch):
    """A model that does the task, the whole way, with pairs of which it is drawn what is called the answer: of 60 runs
    at most one in twenty, and three standard errors. With the answers as they are all runs find the circuit."""

    def found(seed, *, shuffled):
        known, random = KNOWN["induction"](n=24, seed=seed), np.random.default_rng(seed)
        turned = random.random(24) < 0.5 if shuffled else np.zeros(24, bool)
        pairs = [replace(one, answers=one.wrong, wrong=one.answers) if turn else one
                 for one, turn in zip(known.pairs, turned, strict=True)]  # fmt: skip
        made = Task("induction", tuple(pairs[:4]), tuple(pairs[4:8]), tuple(pairs[8:]))
        monkeypatch.setattr(explain, "pairs_of", lambda *_, **sizes: made)
        result = Explain(task="indirect object", seed=seed, **QUICK | {"tested": 16}).run(known.model)
        return NOTHING not in result.attrs["summary"]

    assert np.mean([found(seed, shuffled=True) for seed in range(60)]) <= 0.05 + 3 * np.sqrt(0.05 * 0.95 / 60)
    assert all(found(seed, shuffled=False) for seed in range(3))


def test_an_answer_without_its_space_is_said(default_model):
    """What is explained then is why the model does not say a token that it would never say there."""
    two = "The capital of France is", "The capital of Italy is"
    note = contrast_of(default_model, *two, target="the", against=" Rome").note
    assert "'the' was taken as typed" in note and "' the', with a space in front, is likelier here" in note
    assert contrast_of(default_model, *two, target=" Paris", against=" Rome").note == ""
    found = Found(default_model, dict.fromkeys(STEPS, 1.0), 0.3, note)
    assert found.add("where", dataset(None, recovered=("", 0.5, "share", None))).attrs["summary"].endswith(note)


def test_cancelled_between_two_passes_it_ends_and_leaves_the_model_as_it_was():
    calls = []

    def stop(share):
        calls.append(share)
        if share > 0.2:
            raise Cancelled

    with pytest.raises(Cancelled):
        Explain(**QUICK).run(model(), SHOWN, progress=stop)
    assert calls == sorted(calls) and calls[-1] < 0.9


def test_what_cannot_be_made_is_said():
    random = tiny_model("llama")
    few = Explain(pairs=400, tested=1000, target="#17", against="#23").run(random, Prompt.ids([0, 5, 9]))
    assert "of the 400 / 400 / 1000 asked" in few.attrs["made"] and 5 <= few.sizes["prompt"] < 96
    every, other = list(range(94)), [1, 0, *range(2, 94)]  # no token is left that could stand in for another
    pair = pair_of(random, PairText(Prompt.ids(every), Prompt.ids(other), ("#94",), ("#95",), ""), Counter())
    with pytest.raises(InputError, match=r"made by swapping words of the same kind.*more words to swap"):
        made_pairs(random, Contrast(pair, True, False), (3, 3, 5))
    with pytest.raises(InputError, match=r"the task 'agreements'; expected one of .*agreement.* or a file"):
        Explain(task="agreements").run(random, None)
    dropped: Counter[str] = Counter()
    same = PairText(Prompt.ids([0, 5]), Prompt.ids([0, 6]), ("#7",), ("#7",), "")
    assert pair_of(random, same, dropped) is None and dropped == {"an answer that is the wrong one, too": 1}
    with pytest.raises(InputError, match=r"the wrong one, too.*Name others"):
        contrast_of(random, Prompt.ids([0, 5, 9, 31]), target="#7", against="#7")
    with pytest.raises(InputError, match="explain without a prompt"):
        Explain().run(random)
    costs = Explain().steps(model().sizes, 9)
    assert sum(costs.values()) == Explain().cost(model().sizes, 9) and set(costs) == set(STEPS)


@given(st.integers(0, 50), st.integers(16, 24), st.floats(-2, 2))
@settings(max_examples=25, deadline=None)
def test_the_sentence_follows_from_the_numbers(seed, n, mean):
    random = np.random.default_rng(seed)
    whole, empty = random.normal(mean, 1, n), random.normal(-mean, 1, n)
    kept, rest = whole * random.uniform(0, 1.2, n), empty + random.normal(0, 0.5, n)
    result = behaviour_found(whole, empty).assign_attrs(smallest=0.3, n_edges=1000, wanted=0.8)
    text = said(result)
    assert f"on {int((whole > 0).sum())} of {n} test pairs" in text
    assert f"a difference of {(whole - empty).mean():.2f}" in text
    assert text.startswith(NOTHING) == (not behaves(result))
    result = result.merge(faithful_found(whole, empty, kept, rest))
    share = (kept - empty) / (whole - empty)
    failing = int(((share < 0.5) & (whole > empty)).sum())
    known_pairs = int((whole > empty).sum())
    assert int((result["pair_holds"] == 0).sum()) == failing
    expected = 1 - failing / known_pairs if known_pairs else np.nan
    assert float(result["holds"]) == pytest.approx(expected, nan_ok=True)


def left_out(f, rest, p=0.05, n=20, spread=0.05):
    """Of a circuit with these numbers; on the last pair the swap changes nothing."""
    random = np.random.default_rng(2)
    whole, empty = np.full(n, 3.0), np.full(n, 1.0)
    whole[-1] = empty[-1]
    kept, left = (empty + (whole - empty) * (share + spread * random.normal(size=n)) for share in (f, rest))
    kept[0] = empty[0]
    found = behaviour_found(whole, empty).merge(faithful_found(whole, empty, kept, left))
    told = {"faithfulness": f, "completeness": rest, "n_kept": 9, "p": p}
    told |= {"faithfulness_low": f - 0.1, "faithfulness_high": f + 0.1}
    return unexplained(found.assign(told).assign_attrs(wanted=0.8, smallest=0.3))


def test_what_is_left_out_is_what_the_numbers_say():
    always = ["On 1 of 19 pairs the circuit keeps less than half.",
              "On 1 of 20 pairs the swap does not lower the answer: there is nothing to keep."]  # fmt: skip
    assert left_out(0.998, 0.02) == always == left_out(1.004, -0.05)  # what rounds to nothing is not said
    less, way, *rest = left_out(0.72, 0.31)
    said_so = "28% of the difference is not carried by these edges: they keep 0.72 [0.62, 0.82], less than the 0.8 "
    assert less.startswith(said_so)
    assert way.startswith("Other edges keep 0.31 [0.") and way.endswith("they are another way.") and rest == always
    assert left_out(-0.25, 0.0)[0] == (  # "125% of the difference is not carried by these edges"
        "These edges alone carry nothing of the difference and work against it: they keep -0.25 [-0.35, -0.15], less "
        "than the 0.8 that was searched."
    )
    assert left_out(0.001, 0.0)[0].startswith("100% of the difference is not carried")
    more, against, *rest = left_out(1.2, -0.4)
    assert (
        more == "The edges alone do more than the model (1.20 [1.10, 1.30]): others hold them back." and rest == always
    )
    perhaps = "The edges alone may do more than the model (1.05 [0.95, 1.15]): others may hold them back."
    assert left_out(1.05, 0.0)[0] == perhaps
    # the answer is still preferred (1.0 on the counterfactual prompts), so nothing turns to the wrong one
    assert against.startswith("Without them the answer is worse off than on the counterfactual prompts (-0.40 [-0.")
    assert "may be another way" in left_out(1.0, 0.15, spread=1.0)[0]
    assert "may be worse off" in left_out(1.0, -0.15, spread=1.0)[0]
    assert "may be another way" in left_out(1.0, 0.3, n=12)[0]  # too few for an interval
    assert left_out(0.9, 0.0, p=0.15)[0].startswith(
        "Too many random circuits of this size keep as much (p = 0.15) to tell"
    )


def test_without_a_difference_on_the_pairs_to_search_on_no_circuit_was_too_weak():
    """f is undefined there: "no circuit of half of the edges reaches" it was said."""
    found = behaviour_found(np.linspace(2, 3, 16), np.linspace(-1, -2, 16)).assign(n_kept=0)
    found = found.assign_attrs(smallest=0.3, n_edges=100, wanted=0.8)
    assert "no circuit of half of the 100 edges reaches f = 0.8" in said(
        found.assign_attrs(searched_gap=0.4, n_searched=3)
    )
    assert "on the 3 pairs to search a circuit on, the swap does not lower the answer" in said(
        found.assign_attrs(searched_gap=-0.1, n_searched=3)
    )


def test_what_matters_a_little_is_said_to():
    """Of a difference of 4 logits: heads that are told from their controls by 0.5, 0.05 and 0.03."""
    matter, effect = np.zeros((2, 4)), np.zeros((2, 4))
    matter[0, :3], effect[0, :3] = 1, (-0.5, -0.05, 0.03)
    found = behaviour_found(np.linspace(2, 3, 16), np.linspace(-1, -2, 16)).assign_attrs(smallest=0.3)
    grid = {name: (("layer", "head"), values) for name, values in (("matters", matter), ("effect", effect))}
    found = found.assign(**grid, contrast_p=(("layer", "head"), np.full((2, 4), 0.01)))
    told = found.assign_attrs(n_surveyed=12, n_units=8)
    assert "L0H0 -0.50, L0H1 -0.05, L0H2 +0.03 (1 of them by less than a hundredth of the difference)." in said(told)
    least = told.assign(effect=told["effect"] / 100)
    assert "(all of them by less than a hundredth of the difference)" in said(least)
    assert "of them" not in said(told.assign(effect=told["effect"] * 10))


@pytest.mark.parametrize(
    ("whole", "empty", "why"),
    [
        (-2.0, -5.0, "that it prefers the answers is not clear (p = 1), though the swap changes that (p = 3.1e-05)"),
        (2.0, 2.0, "it prefers the answers (p = 3.1e-05), but that the swap changes that is not clear (p = "),
        (0.0, 0.0, "neither that it prefers the answers is clear (p = "),
        (4.0, 3.8, "the difference is below 0.3 logits"),
    ],
)
def test_nothing_found_names_what_does_not_hold(whole, empty, why):
    random = np.random.default_rng(4)
    noise = random.normal(0, 0.02, 15)
    found = behaviour_found(whole + noise - noise.mean(), empty - noise + noise.mean()).assign_attrs(smallest=0.3)
    assert said(found).startswith(f"{NOTHING}: {why}") and not behaves(found)


def test_what_is_known_of_the_contrast_comes_before_any_pair_is_made():
    """To make pairs takes a while: until then there are the contrast, and an estimate of where it sits."""
    result, told = explained()
    first = told[0]
    assert "pair_clean" not in first and first.attrs["target"] == result.attrs["target"]
    np.testing.assert_array_equal(first["resid_estimate"], result["resid_estimate"])
    assert pairs_table(first)["pair_clean"].tolist() == [result.attrs["shown_clean"]]
    assert "not made yet" in first.attrs["summary"] and unexplained(first)


def test_it_is_drawn_and_listed_at_every_step():
    result, told = explained()
    for some in (*told, result):
        assert VIEW.analysis().sentence(some).strip().endswith(".")
        if "resid_estimate" in some:
            for figure in VIEW.figures:
                assert figure(some).data
        for table in VIEW.tables:
            assert len(table(some)) > 0
    assert (parts_table(result)["head"].eq("") == parts_table(result).index.str.endswith("MLP")).all()  # which has none
    assert not any("." in str(head) for head in parts_table(result)["head"])  # a whole number
    assert repr(result.attrs["shown_corrupt"]) in unescape(where_figure(result).layout.title.text)
    for one in parts_table(result)["part_looks_at"]:  # with the token that stands there
        assert one == "" or one.split(" ", 1)[1] == repr(str(result["token_text"].values[int(one.split()[0])]))
    assert node_of("a12.h3") == (12, 3) and node_of("m7") == (7, -1)


@pytest.mark.parametrize("kind", [*KINDS, "gemma2"])
@pytest.mark.parametrize("edits", [(), (Scale(Attention(1), 2.0),), (Ablate(Attention(1)),)], ids=str)
def test_what_a_part_raises_is_what_arrives_of_it(kind, edits):
    """Beside direct logit attribution: behind Gemma's post-norms, and where attention is scaled, another number."""
    some = tiny_model(kind, n_layers=3).edited(edits)
    clean, corrupt = (with_ids(some, ids) for ids in ((5, 17, 40, 23, 61, 8), (5, 17, 40, 29, 61, 8)))
    shown = Pair(clean, corrupt, Target.one(31), Target.one(7))
    last = np.eye(6)[-1]
    where = {"z": np.ones((3, 6, 4)) * last[None, :, None], "mlp_out": np.ones((3, 6)) * last}
    nodes = [*np.ndindex(3, 4), *((layer, -1) for layer in range(3))]
    ask = DirectLogitAttribution(target="#31", against="#7")
    scales = [some.readout.scale(record(some, one, [RESID_POST]).values[RESID_POST, 2][-1]) for one in (clean, corrupt)]
    own, other = ask.run(some, clean), ask.run(some, corrupt)
    shares = own["attribution"] - other["attribution"] * float(scales[1] / scales[0])  # of one scale, the clean run's
    by_name = dict(zip(own["label"].values.tolist(), shares.values.tolist(), strict=True))
    for part in described_parts(some, nodes, shown, where, [shown, shown], {}):
        assert part.direct == pytest.approx(by_name[part.name], abs=2e-4 * max(map(abs, by_name.values())))


def test_of_a_set_of_answers_the_part_is_of_what_is_measured():
    """The change of the log of summed exponentials, to first order; it was the mean over members."""
    some = tiny_model("llama")
    clean, corrupt = (with_ids(some, ids) for ids in ((5, 17, 40, 23, 61, 8), (5, 17, 40, 29, 61, 8)))
    shown = Pair(clean, corrupt, Target(((31,), (40,), (2,))), Target(((7,), (9,))))
    where = {"z": np.ones((2, 6, 4)) * np.eye(6)[-1][None, :, None], "mlp_out": np.ones((2, 6)) * np.eye(6)[-1]}
    hooks = [RESID_POST, Z]
    state, other = (record(some, one, hooks).values for one in (clean, corrupt))
    moved = (state[Z, 1][-1, 2] - other[Z, 1][-1, 2]) @ some.weights(1).W_O[2]
    last, small = state[RESID_POST, 1][-1], 1e-2
    frozen = some.readout.directions(torch.arange(96)) / some.readout.scale(last)
    value = lambda share: shown.metric.of_logits((some.readout.logits(last) + share * (frozen @ moved))[None, None])
    slope = float(value(small) - value(-small)) / (2 * small)
    (part,) = described_parts(some, [(1, 2)], shown, where, [shown, shown], {})
    assert part.direct == pytest.approx(slope, rel=1e-2, abs=1e-4)


def test_a_head_that_looks_at_its_own_token_copies_nothing():
    """Of two tokens only the last one is left to look at, beside the first, which is no token to be copied."""
    random, nodes = tiny_model("gpt2", seed=1), list(np.ndindex(2, 4))
    tokens = lambda *rows: [SimpleNamespace(clean=with_ids(random, row)) for row in rows]
    assert copying_labels(random, nodes, tokens(*([first, 7] for first in range(20, 30)))) == {}
    assert copying_labels(random, nodes, tokens(*([first, 7, 50] for first in range(20, 30))))
