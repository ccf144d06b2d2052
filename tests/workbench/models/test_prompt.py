"""The one tokenisation path."""

import pytest

from tests.tiny_models import spelling, tiny_hf, tiny_model
from workbench import Prompt, wrap
from workbench.corpora import Document
from workbench.errors import InputError
from workbench.models.prompt import tokenise
from workbench.observation import recording


def test_bos_is_added_once_and_shown(default_model):
    tokens = tokenise(default_model, "The capital of France is")
    assert tokens.ids == (1, 504, 3575, 282, 4649, 314)  # golden: the tokenizer of the bundled file
    assert tokens.bos and tokens.strings[0] == "<|im_start|>" and tokens.strings[2] == " capital"
    assert tokenise(default_model, "<|im_start|>The capital").ids[:2] == (1, 504)
    assert tokenise(default_model, Prompt("The capital", bos=False)).ids == (504, 3575)


def test_a_chat_gets_no_second_bos(default_model):
    tokens = tokenise(default_model, Prompt.chat([{"role": "user", "content": "Hello"}]))
    assert tokens.ids[0] == 1 and tokens.ids[1] != 1
    assert "user" in tokens.strings and tokens.strings[-1] in ("assistant", "\n")


@pytest.mark.parametrize("adds", [True, False])
def test_a_text_stands_behind_what_the_tokenizer_puts_there(adds):
    """Qwen2's tokenizer has a BOS token and adds none: a model trained so is another one behind it."""
    tokenizer = spelling(adds_bos=adds)
    model = wrap(tiny_hf("qwen2"), tokenizer, name="tiny")
    tokens = tokenise(model, "ab")
    assert list(tokens.ids) == tokenizer("ab").input_ids == [0] * adds + [66, 67]
    assert tokens.bos == adds and tokens.start == ("behind BOS '<s>'" if adds else "without BOS")
    assert tokenise(model, Prompt("ab", bos=True)).ids == (0, 66, 67)
    assert tokenise(model, Prompt("ab", bos=False)).ids == (66, 67)
    assert tokenise(model, Prompt.ids([0, 66])).start == "behind BOS '<s>'"
    _, pieces = recording._reference(model, Document("one", "text " * 40), n_tokens=64, piece=32)
    assert {tokenise(model, piece).bos for piece in pieces} == {adds}


def test_two_special_tokens_in_front_are_kept_and_not_doubled():
    from tokenizers import processors

    tokenizer = spelling(adds_bos=False)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        "} <s> $A \n", special_tokens=[("<s>", 0), ("}", 94), ("\n", 95)]
    )
    model = wrap(tiny_hf("llama"), tokenizer, name="tiny")
    assert model.vocabulary.prefix == (94, 0)
    assert tokenise(model, "ab").ids == (94, 0, 66, 67) == tokenise(model, "}<s>ab").ids


def test_ids_are_taken_as_they_are(default_model):
    assert tokenise(default_model, Prompt.ids([504, 3575])).ids == (504, 3575)
    assert tokenise(default_model, [504, 3575]).ids == (504, 3575)


def test_a_trailing_space_is_noticed(default_model):
    assert tokenise(default_model, "Paris ").notes
    assert not tokenise(default_model, "Paris").notes


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("", "at least one character"),
        (Prompt.ids([]), "at least one token"),
        (Prompt.ids([0, 49152]), "ids from 0 to 49151"),
        (Prompt.ids([-1]), "ids from 0 to 49151"),
        (Prompt.ids([5] * 8193), "at most 8192"),
        ("word " * 9000, "at most 8192"),
    ],
)
def test_bad_prompts_say_what_was_expected(default_model, prompt, expected):
    with pytest.raises(InputError, match=expected):
        tokenise(default_model, prompt)


def test_bad_forms_of_prompt():
    with pytest.raises(InputError, match="one of text, messages, token ids"):
        Prompt(text="a", token_ids=(1,))
    with pytest.raises(InputError, match="flat list of integers"):
        Prompt.ids([1.5, 2.0])
    with pytest.raises(InputError, match="role"):
        Prompt.chat([{"content": "no role"}])


def test_text_needs_a_tokenizer():
    with pytest.raises(InputError, match="token ids"):
        tokenise(tiny_model("llama"), "text")


def test_vocabulary_names_tokens(default_model):
    vocabulary = default_model.vocabulary
    assert vocabulary.token(" Paris") == 7042 and vocabulary.string(7042) == " Paris"
    assert vocabulary.token("#17") == 17
    with pytest.raises(InputError, match="first token"):
        vocabulary.token(" Copenhagen harbour")


@pytest.mark.parametrize("n", [1_000_001, 30_000_000])
def test_a_text_that_can_be_no_prompt_is_refused_before_it_is_tokenised(n, monkeypatch):
    """A gigabyte from a chat template took sixteen, and where there are none the tokenizer ends the process."""
    model = wrap(tiny_hf("llama"), spelling(), name="tiny")
    monkeypatch.setattr(type(model.tokenizer), "encode", lambda *_, **__: pytest.fail("it was tokenised"))
    with pytest.raises(InputError, match=f"a prompt of {n:,} characters; expected at most 1,000,000 for tiny"):
        tokenise(model, "x" * n)


def test_a_refusal_of_a_template_in_many_lines_is_one_sentence():
    tokenizer = spelling()
    tokenizer.chat_template = "{{ raise_exception('no system role\\nhere is\\nmore') }}"
    model = wrap(tiny_hf("llama"), tokenizer, name="tiny")
    with pytest.raises(InputError, match=r"refuses \(no system role\); expected"):
        tokenise(model, [{"role": "user", "content": "hi"}])


def test_half_a_character_from_a_template_is_one_sentence():
    tokenizer = spelling()
    tokenizer.chat_template = "{{ '\\ud800' }}"
    model = wrap(tiny_hf("llama"), tokenizer, name="tiny")
    with pytest.raises(InputError, match="a text whose character 0 is none"):
        tokenise(model, [{"role": "user", "content": "hi"}])
