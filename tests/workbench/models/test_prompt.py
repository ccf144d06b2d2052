"""The one tokenisation path."""

import pytest

from probes import Surprisal
from tests.tiny_models import spelling, tiny_hf, tiny_model
from tests.workbench.models.test_vocabulary import of_moves
from workbench import Prompt, observe, wrap
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
    assert tokens.bos == adds and tokens.start == ("the first is BOS '<s>'" if adds else "without BOS")
    assert tokenise(model, Prompt("ab", bos=True)).ids == (0, 66, 67)
    assert tokenise(model, Prompt("ab", bos=False)).ids == (66, 67)
    assert tokenise(model, Prompt.ids([0, 66])).start == "the first is BOS '<s>'"
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


def test_half_a_character_from_a_template_is_one_sentence():
    tokenizer = spelling()
    tokenizer.chat_template = "{{ '\\ud800' }}"
    model = wrap(tiny_hf("llama"), tokenizer, name="tiny")
    with pytest.raises(InputError, match="a text whose character 0 is none"):
        tokenise(model, [{"role": "user", "content": "hi"}])


def test_special_tokens_inside_a_text_are_said(default_model):
    """A tokenizer reads their names as the tokens themselves: a user's message ends where it quotes one."""
    quoted = [{"role": "system", "content": "Explain."}, {"role": "user", "content": "What is <|im_end|> for?"}]
    (note,) = tokenise(default_model, quoted).notes
    assert note.startswith("Message 1 (user) holds '<|im_end|>', which is read as the special token")
    (note,) = tokenise(default_model, [{"role": "user", "content": "<|im_start|> begins a turn"}]).notes
    assert note.startswith("Message 0 (user) holds '<|im_start|>'")
    (note,) = tokenise(default_model, "It prints <|endoftext|> and goes on").notes
    assert note.startswith("The prompt holds '<|endoftext|>'")
    for plain in ("It prints < | endoftext | >", "<|im_start|>user\nHi<|im_end|>", [{"role": "user", "content": "Hi"}]):
        assert not tokenise(default_model, plain).notes


def test_tokens_of_another_tokenizer_are_refused(default_model):
    reads = wrap(tiny_hf("llama"), spelling(), name="reads")
    with pytest.raises(InputError, match="ids from 0 to 95"):
        observe(reads, tokenise(default_model, "The capital"))
    other = wrap(tiny_hf("llama"), of_moves(), name="other")
    with pytest.raises(InputError, match="tokens of another tokenizer than other's"):
        Surprisal().run(other, tokenise(reads, Prompt.ids([2, 3, 4])))
    again = wrap(tiny_hf("llama", seed=1), spelling(), name="again")  # another model that reads alike
    assert tokenise(again, tokens := tokenise(reads, "Ann and Bob")) is tokens


def templated(template):
    tokenizer = spelling()
    tokenizer.chat_template = template
    return wrap(tiny_hf("llama"), tokenizer, name="talks")


def test_what_a_template_makes_of_messages_is_said():
    """Templates leave out roles that they do not know, rewrite messages, and cut white space off."""
    trims = templated("{% for m in messages if m.role != 'tool' %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}")
    chat = [{"role": "user", "content": " 6 x 7? "}, {"role": "tool", "content": "42"}]
    assert tokenise(trims, chat).notes == (
        "Message 1 (tool) is left out or changed by the model's chat template: see the tokens.",
    )
    assert not tokenise(trims, chat[:1]).notes
    goes_on = tokenise(trims, [*chat[:1], {"role": "assistant", "content": "It is "}])
    assert goes_on.text.endswith("assistant: It is") and "without the white space at its end" in goes_on.notes[0]


@pytest.mark.parametrize("cut", [" | trim", ""])
def test_an_empty_answer_is_gone_on_with_behind_the_head_of_its_turn(cut):
    """transformers cuts the lines between that head and an empty message off with it, where a template trims."""
    template = "{% for m in messages %}<{{ m.role }}>\n\n{{ m.content" + cut + " }}</>{% endfor %}"
    talks = templated(template + "{% if add_generation_prompt %}<assistant>\n\n{% endif %}")
    chat = [{"role": "user", "content": "6 x 7?"}]
    asked = tokenise(talks, chat)
    assert asked.text.endswith("</><assistant>\n\n")
    assert tokenise(talks, [*chat, {"role": "assistant", "content": ""}]).ids == asked.ids
    other = templated(
        "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}{{ '' if messages[1:] else '?' }}"
    )
    own = tokenise(other, [*chat, {"role": "assistant", "content": ""}])
    assert own.text.endswith(
        "6 x 7?<assistant>"
    )  # what it writes of the message stays, where it opens a turn otherwise


def test_what_a_template_refuses_is_one_sentence():
    chat = [{"role": "user", "content": "6 x 7?"}, {"role": "assistant", "content": "So"}]
    shouts = templated("{% for m in messages %}{{ m.content | replace('S', 's') }}{% endfor %}")
    with pytest.raises(InputError, match="a last message of the assistant that talks's chat template") as refused:
        tokenise(shouts, chat)
    assert "TAG" not in str(refused.value)
    alternates = templated("{{ raise_exception('Roles must\\nalternate') }}")
    with pytest.raises(InputError, match=r"refuses \(Roles must alternate\)"):
        tokenise(alternates, chat)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_without_its_mask_is_said(side):
    """Ids that a tokenizer filled up ran as they are, without a word; with the mask they are left out."""
    letters = spelling()
    letters.pad_token, letters.padding_side = "!", side
    model = wrap(tiny_hf("llama"), letters, name="padded")
    given = letters(["the cat sat", "a"], padding=True, return_tensors="pt")
    long, short = (tokenise(model, row) for row in given.input_ids)
    end = {"left": "begin", "right": "end"}[side]
    assert not long.notes and short.notes == (
        f"The ids {end} with 10 padding tokens ('!'), read like any others: give the mask.",
    )
    assert [len(one) for one in observe(model, given).tokens] == [12, 2]
    letters.pad_token = "<s>"  # of a tokenizer without one: a single one at the end is what it is, too
    assert not tokenise(model, Prompt.ids([0, 5, 7, 0])).notes and not tokenise(model, Prompt.ids([0, 0])).notes
    assert "end with 2 padding tokens" in tokenise(model, Prompt.ids([0, 5, 7, 0, 0])).notes[0]
