"""Swaps: a word is renamed in all its forms, a sequence goes on as it did, a digit stays a digit where it stands."""

from collections import Counter

import pytest

from probes.circuits.graph.task_texts import PairText
from probes.circuits.graph.tasks import pair_of
from probes.explain.contrasts import Contrast, contrast_of, shown_text, with_ids
from probes.explain.fluent import SENTENCE, fluent
from probes.explain.same_kind import KINDS, ORDERED, Ordered, pieces, same_kind, says_something
from probes.explain.swaps import moving, swaps
from probes.lens.surprisal import Surprisal
from workbench.errors import InputError
from workbench.models.prompt import tokenise


@pytest.fixture(scope="module")
def made(default_model):
    """Texts of swaps of a pair, clean and corrupt."""

    def of(clean, corrupt, answer, wrong, n=40, **options):
        pair = pair_of(default_model, PairText(clean, corrupt, (answer,), (wrong,), "shown"), Counter())
        found = swaps(default_model, pair, n, 3, **options)
        texts = lambda ids: shown_text(default_model, with_ids(default_model, ids))
        written = lambda swap, target: default_model.vocabulary.string(swap.words.get(target, target))
        ends = [[written(one, target.members[0][0]) for target in (pair.answers, pair.wrong)] for one in found]
        return pair, [(texts(one.clean), texts(one.corrupt), *two) for one, two in zip(found, ends, strict=True)]

    return of


def test_a_sequence_goes_on_as_it_did_elsewhere_and_in_other_lists(made):
    _, found = made("April, May, June,", "April, June, June,", " and", " June")
    listed = [word for name in ("days", "months", "numbers") for word in KINDS[name]]
    assert len({one[0] for one in found}) == len(found) == len({one[1] for one in found}) and len(found) > 15
    for clean, corrupt, answer, wrong in found:
        words = clean.rstrip(",").split(", ")
        assert answer == " and" and wrong.strip() == words[2] and corrupt.split(", ")[1] == words[2]
        for group in ORDERED:
            for ordered in group.values():
                if all(word in ordered.words for word in words):
                    a, b, c = map(ordered.words.index, words)
                    assert ordered.between(a, b) == 1 == ordered.between(b, c)
                    break
        assert set(words) <= {*listed, "one"}
    cycle, line = Ordered(("a", "b", "c"), True), Ordered(("a", "b", "c"))
    assert (cycle.word(4), line.word(4), line.word(-1), cycle.between(2, 0), line.between(2, 0)) == (
        "b", None, None, 1, -2,
    )  # fmt: skip


def test_a_word_is_the_same_word_with_a_space_and_with_a_capital(made):
    _, found = made("Paper burns. The paper, paper", "Paper burns. The paper, stone", " burns", " falls", n=8)
    assert len(found) == 8
    for clean, _, _, _ in found:
        first, again, last = clean.split()[0], clean.split()[3].rstrip(","), clean.split()[4]
        assert first.lower() == again == last != "paper" and first[0].isupper()


def test_digits_stay_digits_and_examples_stay_true_where_an_answer_is_worked_out(made):
    shown, wrong_one = "5+2=7, 8+1=9, 4+2=", "5+2=7, 8+1=9, 3+2="
    for in_place in (False, True):
        _, found = made(shown, wrong_one, "6", "5", n=16, in_place=in_place)
        assert found and all(set(text) <= set("0123456789+=, ") for one in found for text in one[:2])
        assert all(text.startswith("5+2=7, 8+1=9, ") for one in found for text in one[:2])
    assert all(clean[-3:] == corrupt[-3:] or clean[-1] == "=" for clean, corrupt, _, _ in found)
    assert len({one[0][-4:] for one in found}) > 8
    _, found = made("x=5, y=2. 1 + 3 = 4. x=", "x=6, y=2. 1 + 3 = 4. x=", "5", "6", n=16)  # what is given may change
    assert all(" 1 + 3 = 4." in text for one in found for text in one[:2]) and len({one[0][:8] for one in found}) > 5
    _, found = made("A tall tree", "A short tree", " falls", " stands", n=6, in_place=True)  # words move all the same
    assert len({one[0].split()[1] for one in found} - {"tall"}) > 3 < len({one[1].split()[1] for one in found})


def test_an_answer_that_says_nothing_by_itself_does_not_move(made, default_model):
    pair, found = made("She said that the dog of", "She said that the cat of", " the", " of", n=6)
    assert {default_model.vocabulary.string(i) for i in moving(default_model, pair)} == {" dog", " cat"}
    assert found and all(one[2:] == (" the", " of") for one in found)
    told = [says_something(one) for one in (" Mary", "#11", "7", "x", " de", " the", ", ", " ", "a")]
    assert told == [True] * 4 + [False] * 5


def test_a_piece_of_a_word_is_swapped_for_nothing(made, default_model):
    """Another one in its place makes no word. What is given as ids that no text is written as has no words."""
    at = lambda tokens: [tokens.strings[pos] for pos in sorted(pieces(default_model, tokens))]
    assert at(tokenise(default_model, "Der Freitag war kalt")) == [" Fre", "it", "ag", " k", "alt"]
    torn = at(tokenise(default_model, "東京は日本の首都です。パリは"))  # some characters are two or three tokens
    assert len(torn) > 2 and all("\u27e8" in one for one in torn)
    near = same_kind(default_model, default_model.vocabulary.tokens("。")[0], 50)
    assert len(near) > 10 and not any("\u27e8" in default_model.vocabulary.string(one) for one in near)
    assert at(tokenise(default_model, "He wasn't there")) == [" wasn", "'t"]
    assert not at(tokenise(default_model, "The dog's paw in 1984, twice"))
    ids = [default_model.vocabulary.tokens(text)[0] for text in ("t", "he", "t", "he")]
    assert not at(with_ids(default_model, ids))
    _, found = made("An old house near Szeged is", "An old house near Poznan is", " a", " the", n=12)
    assert len(found) == 12 == len({one[0] for one in found})
    assert all(one[0].endswith(" Szeged is") and one[1].endswith(" Poznan is") for one in found)
    with pytest.raises(InputError, match="without a word of one token"):
        contrast_of(default_model, "Montag, Dienstag, Mittwoch,")


def test_the_likest_words_come_first_and_those_of_a_list_all(made):
    _, found = made("She painted the cottage near the lake", "She painted the factory near the lake", " in", " and")
    near = {one[0].split()[3] for one in found}
    assert len(found) == 40 and len(near) <= 13  # twelve, and the shown one; the others beside other words
    assert len({(one[0].split()[1], one[0].split()[4]) for one in found}) > 1
    _, found = made("She met Robert near the lake", "She met Laura near the lake", " in", " and")
    assert len({one[0].split()[2] for one in found}) > 15


def test_what_moves_may_stay_and_others_move_beside_it(made):
    """One other word at a time, then two: enough of them."""
    shown = "She painted the cottage near the lake and slept"
    _, found = made(shown, shown.replace("cottage", "factory"), " in", " and", n=60, beside_alone=True)
    assert len(found) == 60 == len({one[0] for one in found})
    assert all(" cottage " in one[0] and one[1] == one[0].replace("cottage", "factory") for one in found)
    changed = [sum(a != b for a, b in zip(one[0].split(), shown.split(), strict=True)) for one in found]
    assert changed == sorted(changed) and set(changed) == {1, 2}


def test_other_words_make_a_sentence_and_stay_on_their_side(made, default_model):
    """What may be a place in "located in the ... of", and is liker to a city than to a country where it stands for
    one; near words that make no sentence are left for where there are too few."""
    _, found = made("It is located in the city of", "It is located in the country of", " Rome", " Italy", n=4)
    cities, countries = ({one[side].split()[5] for one in found} for side in (0, 1))
    assert {"town", "village"} & cities and not cities & countries
    assert not (cities | countries) & {"two", "urban", "local", "non", "new", "long", "small"}
    tokens = tokenise(default_model, "It is located in the city of")
    city = tokens.ids[tokens.strings.index(" city")]
    token = lambda word: default_model.vocabulary.tokens(word)[0]
    lost = fluent(default_model, tokens.ids, city, list(map(token, (" urban", " town", " two"))))
    assert list(lost) == list(map(token, (" town", " urban", " two"))) and lost[token(" town")] < SENTENCE < 9
    assert lost[token(" urban")] > SENTENCE


def test_a_counterfactual_is_the_nearest_word_that_may_stand_there(default_model):
    """Not the likeliest one: what is odd may be what is asked."""
    found = contrast_of(default_model, "My grandmother lost her keys yesterday, because")
    assert " grandfather" in found.pair.corrupt.strings and found.has_words(default_model)


def test_what_a_sentence_loses_is_what_its_tokens_surprise_more(default_model):
    tokens = tokenise(default_model, "It is located in the city of")
    place, other = tokens.strings.index(" city"), default_model.vocabulary.tokens(" town")[0]
    changed = [*tokens.ids[:place], other, *tokens.ids[place + 1 :]]
    two = [Surprisal().run(default_model, ids)["surprisal"].values[place:].sum() for ids in (tokens, changed)]
    lost = fluent(default_model, tokens.ids, tokens.ids[place], [other])
    assert lost[other] == pytest.approx(two[1] - two[0], abs=1e-3)  # float32 sums of a batch of two and of one


@pytest.mark.parametrize(("answers", "has_words"), [((".", ","), False), ((" (", "\n"), False), ((".", " was"), True)])
def test_whether_answers_are_punctuation_alone_is_known(default_model, answers, has_words):
    text = PairText("The dogs in the house", "The dog in the house", answers[:1], answers[1:], "shown")
    pair = pair_of(default_model, text, Counter())
    assert pair is not None and Contrast(pair, True, True).has_words(default_model) == has_words
