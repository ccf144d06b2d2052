"""Words are found in the text of a prompt, whatever its tokens are."""

import unicodedata

import pytest

from workbench.models.prompt import Prompt, tokenise
from workbench.models.spans import Spans, spans_of
from workbench.models.vocabulary import Vocabulary

WORDS = ["Łódź", "नमस्ते", "👩‍🚀", "Zoë", "Ærøskøbing", "서울", "naïve café", "🇧🇷", "x̌"]


@pytest.mark.parametrize("word", WORDS)
def test_any_word_is_found_in_text_and_in_ids(default_model, word):
    vocabulary = default_model.vocabulary
    for prompt in (
        f"Hello {word}, and again {word} is here",
        Prompt.chat([{"role": "user", "content": f"Oh {word}!"}]),
    ):
        tokens = tokenise(default_model, prompt)
        found = tokens.touching(word)
        assert found == tuple(range(found[0], found[-1] + 1))
        raw = b"".join(vocabulary.bytes_of(tokens.ids[p]) for p in found).decode()
        assert raw.strip(" !,") == word
        again = tokenise(default_model, list(tokens.ids))  # ids carry no text: their bytes do
        assert again.touching(word) == found
    assert tokens.touching("absent") == () and tokens.touching("") == ()


def test_bytes_that_are_no_text_take_one_character_each():
    spans = Spans.laid(["न".encode()[:2], b"a", "न".encode()[:2], "न".encode()[2:], b"", b"b"])
    assert spans.text == "\ufffd\ufffdanb".replace("n", "न")
    assert spans.ends == ((0, 2), (2, 3), (3, 4), (3, 4), (5, 5), (4, 5))
    assert spans.touching("न") == (2, 3) and spans.touching("ab") == ()


def lowering():
    """A tokenizer that lowers case and drops accents: its tokens are not the text, its offsets are."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[UNK]", "the", "city", "of", "lodz", "eblag", "is", "old"]
    tokens = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokens.normalizer = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    tokens.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokens, unk_token="[UNK]")


def test_a_tokenizer_that_changes_the_text_gives_its_own_offsets():
    vocabulary, text = Vocabulary(lowering(), 8), "The City of Lódź is OLD"
    ids = vocabulary.tokenizer.encode(text, add_special_tokens=False)
    spans = spans_of(vocabulary, ids, text)
    assert spans.text == text and spans.touching("Lódź") == (3,) and spans.touching("City of") == (1, 2)
    assert spans.piece(3) == " Lódź"  # the space that offsets leave out belongs to the word behind it
    assert spans_of(vocabulary, [7, *ids], text).touching("City") == (2,)  # behind a token that was added


@pytest.mark.parametrize(
    "text, word, at",
    [
        ("Ann met Annabel", "Ann", 0),
        ("Ann, Ann and Annabel", "Ann", 5),
        ("foo(foo_bar)", "foo", 0),
        ("Dvor, Dvor\u030ca\u0301k", "Dvor", 0),  # an accent of its own belongs to its letter
        ("it is Ann's, Annabel", "Ann", 6),
        ("a cat in concatenation", "cat", 2),
        ("concatenation", "cat", 3),  # no word of its own: where it is
        ("東京は東京都", "東京", 3),  # no spaces: the last place
        ("aaa", "aa", 1),
    ],
)
def test_a_word_is_its_last_occurrence_as_a_whole_one(text, word, at):
    spans = Spans.laid([character.encode() for character in text])
    assert spans.touching(word) == tuple(range(at, at + len(word)))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_are_found_however_they_are_written(default_model, form):
    """A file's name on one system and a keyboard on another: the same word to everybody who reads it."""
    text, word = unicodedata.normalize(form, "in Malmö und Kraków lebt"), "Kraków"
    tokens = tokenise(default_model, Prompt(text, bos=False))
    found = [tokens.touching(unicodedata.normalize(other, word)) for other in ("NFC", "NFD")]
    assert found[0] == found[1] and default_model.vocabulary.text(tokens.ids[i] for i in found[0]).strip() == (
        unicodedata.normalize(form, word)
    )
