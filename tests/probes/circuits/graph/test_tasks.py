"""Tasks: pairs of equal length whose answers are single tokens, and splits that share nothing."""

import json
import string
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from probes.circuits.graph import tasks
from probes.circuits.graph.task_texts import TASKS
from probes.circuits.graph.tasks import batches, read_task, task
from tests.tiny_models import tiny_hf
from workbench.errors import InputError
from workbench.loading.pretrained import wrap


@pytest.mark.parametrize("name", TASKS)
def test_texts_differ_in_what_is_asked(name):
    drawn = [pair for _, pair in zip(range(200), TASKS[name](np.random.default_rng(0)), strict=False)]
    for pair in drawn:
        assert pair.clean != pair.corrupt and pair.answers and pair.wrong and not set(pair.answers) & set(pair.wrong)
    assert len({pair.clean for pair in drawn}) > 30
    assert drawn == [pair for _, pair in zip(range(200), TASKS[name](np.random.default_rng(0)), strict=False)]


@pytest.mark.parametrize("name", ["arithmetic", "greater than"])
def test_no_prompt_is_on_two_sides(speller, name):
    """Also where a counterfactual is another pair's prompt, or that of many pairs."""
    found = task(speller, name, train=10, validation=5, test=10, seed=1)
    sides = [{ids for pair in split for ids in (pair.clean.ids, pair.corrupt.ids)}
             for split in (found.train, found.validation, found.test)]  # fmt: skip
    assert not sides[0] & sides[1] and not sides[0] & sides[2] and not sides[1] & sides[2]


def test_splits_are_apart(model):
    found = task(model, "indirect object", train=8, validation=4, test=12, seed=3)
    assert [len(s) for s in (found.train, found.validation, found.test)] == [8, 4, 12]
    prompts = [{p.clean.ids for p in split} | {p.corrupt.ids for p in split}
               for split in (found.train, found.validation, found.test)]  # fmt: skip
    assert not prompts[0] & prompts[2] and not prompts[1] & prompts[2] and not prompts[0] & prompts[1]
    for pair in (*found.train, *found.test):
        assert len(pair.clean) == len(pair.corrupt) and pair.clean.ids != pair.corrupt.ids
        assert model.vocabulary.text([pair.answers.token]).strip() in pair.clean.text
    assert "8 / 4 / 12 pairs" in found.describe()


def test_a_shared_start_of_all_answers_joins_the_prompt(speller):
    """Where a space is a token of its own, " 7" is asked as "7" behind a prompt that ends with the space."""
    found = task(speller, "arithmetic", train=4, test=4)
    for pair in found.train:
        assert pair.clean.strings[-1].strip() == "" and pair.clean.strings[-2] == "="
        assert pair.answers.token is not None
        a, b = (int(pair.clean.strings[i]) for i in (-8, -4)) if pair.clean.strings[-8].isdigit() else (None, None)
        if a is not None:
            assert speller.vocabulary.text([pair.answers.token]) == str(a + b)


def test_greater_than_is_a_set_of_digits_with_one_undecided(speller):
    for pair in task(speller, "greater than", train=4, test=2).train:
        written = pair.clean.text
        tens = int(written.split(" to the year")[0][-2])
        digits = lambda target: {int(speller.vocabulary.text(member)) for member in target.members}
        assert digits(pair.answers) == set(range(tens + 1, 10)) and digits(pair.wrong) == set(range(tens))


def test_too_few_are_refused_with_what_was_left_out(speller):
    with pytest.raises(InputError, match="answers that are not single tokens"):
        task(speller, "capital")
    with pytest.raises(InputError, match="the task 'ioi'"):
        task(speller, "ioi")


def test_answers_of_a_file_in_the_unlikely_form_are_said(speller, tmp_path, monkeypatch):
    """A cell holds "Mary" and a sentence goes on with " Mary": another token, of which somebody else's circuit is."""
    (space,) = speller.vocabulary.tokens(" ")

    def goes_on_with(token_id):
        row = torch.zeros(1, speller.sizes.d_vocab)
        row[0, token_id] = 9.0
        monkeypatch.setattr(tasks, "observe", lambda _, prompts: SimpleNamespace(logits=[row] * len(prompts)))

    path = tmp_path / "mine.csv"
    path.write_text("clean,corrupt,answer,wrong\n" + "".join(f"{a}b,{a}c,x,y\n" for a in "defgh"))
    goes_on_with(space)
    found = read_task(speller, path, train=2, test=3)
    assert found.note.startswith(
        "Of 10 answers looked at, 10 would be likelier in another form: 'x' was taken as typed"
    )
    assert found.noted("A circuit.") == f"A circuit. {found.note}"
    goes_on_with(speller.vocabulary.token("x"))
    assert read_task(speller, path, train=2, test=3).note == ""
    goes_on_with(space)
    path.write_text("clean,corrupt,answer,wrong\n" + "".join(f"{a}b,{a}c,#8,#9\n" for a in "defgh"))
    assert read_task(speller, path, train=2, test=3).note == ""  # ids are meant as they are


def test_pairs_of_a_file(speller, tmp_path):
    rows = [{"clean": f"{a}b", "corrupt": f"{a}c", "answer": "x", "wrong": '["y", "z"]'} for a in "defghijk"]
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_task(speller, path, train=3, test=4)
    assert found.name == "mine" and len(found.test) == 4 and len(found.test[0].wrong.members) == 2
    path.write_text('{"clean": "ab", "corrupt": "ac"}\n')
    with pytest.raises(InputError, match="without answer and wrong"):
        read_task(speller, path, train=1, test=0)
    (tmp_path / "odd.csv").write_text("clean,corrupt,answer,wrong\nabc,ab,x,y\nab,ab,x,y\n")
    with pytest.raises(InputError, match="unequal length"):
        read_task(speller, tmp_path / "odd.csv", train=1, test=0)
    (tmp_path / "unread.csv").write_text("clean,corrupt,answer,wrong\nab,ac,é,y\nad,ae,x,y\n", encoding="utf-8")
    assert len(read_task(speller, tmp_path / "unread.csv", train=1, test=0).train) == 1
    with pytest.raises(InputError, match="answers that the tokenizer has no tokens for"):
        read_task(speller, tmp_path / "unread.csv", train=2, test=0)


def test_a_seed_draws_the_pairs_of_a_file(speller, tmp_path):
    """The first rows were taken whatever it was, and tables are sorted."""
    path = tmp_path / "sorted.csv"
    letters = string.ascii_lowercase[3:]
    path.write_text("clean,corrupt,answer,wrong\n" + "".join(f"{a}b,{a}c,x,y\n" for a in letters))
    taken = [[pair.clean.text for pair in read_task(speller, path, train=3, test=4, seed=s).train] for s in (0, 0, 1)]
    assert taken[0] == taken[1] != taken[2]
    assert any(text > "k" for text in taken[0])


def test_a_pair_that_lacks_an_answer_is_named_and_repeats_are_counted(speller, tmp_path):
    path = tmp_path / "gap.csv"
    path.write_text("clean,corrupt,answer,wrong\nab,ac,x,y\ndb,dc,x,\n")
    with pytest.raises(InputError, match=r"pair 2 of .*gap\.csv without wrong \('db'\).*Fill them in"):
        read_task(speller, path, train=1, test=0)
    path.write_text("clean,corrupt,answer,wrong\n" + "".join(f"ab,{c}b,x,y\n" for c in "defg"))
    with pytest.raises(InputError, match=r"3 left out \(clean prompts that came before\)"):
        read_task(speller, path, train=1, test=1)


def test_what_answers_begin_with_alike_is_said_to_join_the_prompts(speller, tmp_path):
    """Of 24 against 25 the model was asked for the second digit behind the first, without a word."""
    path = tmp_path / "sums.csv"
    path.write_text("clean,corrupt,answer,wrong\n" + "".join(f"{a}b,{a}c,xy,xz\n" for a in "defg"))
    found = read_task(speller, path, train=2, test=2)
    assert found.note.startswith("4 of 4 pairs are asked behind what their answers begin with alike, such as 'x'.")
    assert found.train[0].answers.token == speller.vocabulary.token("y")


@pytest.fixture
def spacer():
    """Letters, and two names that are one token each behind a space, as most tokenizers have words."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([*string.ascii_letters, " ", " Mary", " John"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=" "))
    made.pre_tokenizer = pre_tokenizers.Split(Regex(r" Mary| John|[\s\S]"), "isolated")
    made.decoder = decoders.Fuse()
    return wrap(tiny_hf("llama"), PreTrainedTokenizerFast(tokenizer_object=made), name="spacer")


def test_answers_without_their_space_are_told_of(spacer, tmp_path):
    """Nobody types a space into a cell: all pairs were left out, and to ask for fewer does not help."""
    path = tmp_path / "own.csv"
    table = "clean,corrupt,answer,wrong\n" + "".join(f"{a}b,{a}c,{{0}}Mary,{{0}}John\n" for a in "defgh")
    path.write_text(table.format(""))
    with pytest.raises(InputError, match=r"single tokens.*with the space .*\(' Mary' is one token, 'Mary' is not"):
        read_task(spacer, path, train=1, test=1)
    path.write_text(table.format(" "))
    assert len(read_task(spacer, path, train=1, test=1).test) == 1
    with pytest.raises(InputError, match="Ask for fewer"):
        read_task(spacer, path, train=9, test=9)


def test_batches_hold_pairs_of_one_length(model):
    pairs = task(model, "indirect object", train=20, test=1).train
    seen = []
    for some in batches(pairs, 4):
        assert len(some.pairs) <= 4 and some.clean.shape == some.corrupt.shape
        assert [tuple(row) for row in some.clean.tolist()] == [pairs[place].clean.ids for place in some.places]
        seen += some.places
    assert sorted(seen) == list(range(20))
