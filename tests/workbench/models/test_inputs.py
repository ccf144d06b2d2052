"""One place decides what a prompt is."""

from collections import deque
from enum import Enum
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from tests.long_run import examples
from tests.tiny_models import spelling, tiny_hf
from workbench import observe, run
from workbench.errors import InputError
from workbench.loading.pretrained import wrap
from workbench.models.hooks import RESID_POST
from workbench.models.prompt import Prompt, prompts_of, tokenise
from workbench.observation import Need, keep

IDS = (3, 1, 4, 1, 5)
CHAT = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def model():
    """A tiny model that reads characters."""
    return wrap(tiny_hf("llama"), spelling(), name="tiny-spelling")


ONE = [
    IDS,
    list(IDS),
    deque(IDS),
    np.array(IDS),
    np.array(IDS, dtype=np.uint16),
    np.array([IDS]),
    torch.tensor(IDS),
    torch.tensor([IDS], dtype=torch.int32),
    [np.int64(i) for i in IDS],
    [torch.tensor(i) for i in IDS],
    [list(IDS)],
    iter(IDS),
    Prompt.ids(IDS),
    {"input_ids": list(IDS), "attention_mask": [1] * 5},
    {"input_ids": torch.tensor([[0, 0, *IDS]]), "attention_mask": torch.tensor([[0, 0, 1, 1, 1, 1, 1]])},
    {"input_ids": np.array([[*IDS, 0]]), "attention_mask": np.array([[1, 1, 1, 1, 1, 0]])},
]


@pytest.mark.parametrize("given_ids", ONE, ids=lambda value: type(value).__name__)
def test_ids_in_any_form_are_the_same_prompt(model, given_ids):
    assert tokenise(model, given_ids).ids == IDS


def test_what_a_tokenizer_returns_is_run_as_its_ids(model):
    tokenizer = model.tokenizer
    for text, options in (("abc", {}), ("abc", {"return_tensors": "pt"}), (["abc"], {"return_tensors": "np"})):
        encoded = tokenizer(text, **options)
        (tokens,) = observe(model, encoded).tokens
        assert tokens.ids == tuple(tokenizer.encode("abc")) and tokens.ids[-3:] == (66, 67, 68)
    tokenizer.pad_token = " "
    several = tokenizer(["ab", "abcd"], padding=True, return_tensors="pt", add_special_tokens=False)
    assert [len(one) for one in observe(model, several).tokens] == [2, 4]
    assert tokenise(model, tokenizer._tokenizer.encode("abc", add_special_tokens=False)).ids == (66, 67, 68)


def test_what_a_tokenizer_cannot_read_is_said(model):
    """One token stands for all that is unknown, or nothing does: other texts give the same numbers."""
    plain, odd, other = (tokenise(model, text) for text in ("I like a cafe.", "I like ñ and ß.", "I like ø and ж."))
    assert odd.ids == other.ids and plain.notes == ()
    assert "no token for 'ñ', 'ß': 2 of" in odd.notes[0] and "'ø', 'ж'" in other.notes[0]
    letters = Tokenizer(models.BPE({chr(97 + i): i for i in range(26)}, []))  # none for what is unknown: left out
    leaving = wrap(tiny_hf("llama"), PreTrainedTokenizerFast(tokenizer_object=letters), name="leaving")
    assert tokenise(leaving, "abc").notes == ()
    assert tokenise(leaving, "a5b").notes == ("The tokenizer leaves out '5': the model does not see it.",)
    assert tokenise(leaving, "aß5b").notes == (
        "The tokenizer leaves out 2 characters, such as 'ß5': the model does not see them.",
    )


def test_a_member_of_an_enumeration_is_its_text_and_not_its_name(model):
    Asked = Enum("Asked", {"FRANCE": "ab"}, type=str)
    assert str(Asked.FRANCE) != "ab"
    chat = [{"role": "user", "content": Asked.FRANCE}]
    assert tokenise(model, Asked.FRANCE).source.text == "ab" and prompts_of(chat)[0].messages == (("user", "ab"),)


def test_several_prompts_in_any_form(model):
    kinds = [["ab", "cd"], np.array(["ab", "cd"]), ("ab", "cd"), (text for text in ("ab", "cd")), [Prompt("ab"), "cd"]]
    for several in kinds:
        assert [one.source.text for one in observe(model, several).tokens] == ["ab", "cd"]
    assert [len(one) for one in observe(model, torch.tensor([[1, 2], [3, 4]])).tokens] == [2, 2]
    with pytest.raises(InputError, match="2 prompts"):
        tokenise(model, ["ab", "cd"])


def test_chats_in_any_form():
    wanted = Prompt.chat(CHAT)
    parts = [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}]
    for chat in (CHAT, CHAT[0], {"messages": CHAT}, parts, [{**CHAT[0], "name": None}]):
        assert prompts_of(chat) == [wanted]
    assert prompts_of([CHAT, CHAT]) == [wanted, wanted]


def test_an_assistants_message_is_continued(default_model):
    asked = [{"role": "user", "content": "Where is Oslo?"}]
    opened = tokenise(default_model, asked)
    begun = tokenise(default_model, [*asked, {"role": "assistant", "content": "It is in"}])
    assert begun.ids[: len(opened)] == opened.ids
    assert default_model.vocabulary.text(begun.ids[len(opened) :]) == "It is in"


REFUSED = [
    (None, "None"),
    (b"bytes", "Decode it"),
    (bytearray(b"x"), "Decode it"),
    (memoryview(b"x"), "the type memoryview"),
    (Path("a.txt"), "Read the file"),
    (StringIO("one\ntwo\n"), "Read the file"),
    (True, "ids in a list"),
    (17, "ids in a list"),
    (3.5, "ids in a list"),
    ([True, False], "flat list of integers"),
    ([1.0, 2.0], "flat list of integers"),
    ([1, 2.5], "flat list of integers"),
    ([1, "a"], "flat list of integers"),
    ([1, None], "flat list of integers"),
    (np.array([0.5]), "flat list of integers"),
    (torch.tensor([True]), "flat list of integers"),
    (np.zeros((2, 2, 2), dtype=int), "3 axes"),
    (np.array(3), "0 axes"),
    ({"text": "a"}, "dictionary with 'text'"),
    ({}, "nothing"),
    ({"input_ids": [1, 2], "attention_mask": [1]}, "another shape"),
    ({1, 2}, "type set"),
    (object(), "type object"),
    ("caf\udce9", "UTF-8"),
    ([{"role": "user"}], "role and a content"),
    ([{"role": "user", "content": None}], "content None"),
    ([{"role": "user", "content": [{"type": "image", "url": "x"}]}], "parts of the type 'text'"),
    ([{"role": 3, "content": "x"}], "the role 3"),
    ([{"role": "user", "content": "x", "tool_calls": [1]}], "tool_calls"),
    ([{"role": "user", "content": "\ud800"}], "UTF-8"),
    ([0, 96], "ids from 0 to 95"),
    ([10**30], "ids from 0 to 95"),
    ([-1], "ids from 0 to 95"),
    ([], "no tokens"),
    ("", "empty prompt"),
    (np.array([], dtype=int), "no tokens"),
    ({"input_ids": [5, 6, 7], "attention_mask": [0.0, -3e38, 0.0]}, "the mark -3e"),
    ({"input_ids": [[5, 6, 7]], "attention_mask": torch.tensor([[1, 0, 1]])}, "padding at the ends"),
    ({"input_ids": [5, 6], "attention_mask": [1, -1]}, "the mark -1"),
    ({"input_ids": [5, 6], "attention_mask": [1, "1"]}, "the mark '1'"),
    ({"input_ids": [5, 6], "position_ids": [3, 4]}, "with 'position_ids' beside"),
    ({"input_ids": [5, 6], "inputs_embeds": torch.zeros(1, 2, 32)}, "with 'inputs_embeds' beside"),
    (["a", ["b", "c"]], r"prompt \['b', 'c'\] in a list"),
    ([("user", "hi")], "in a list of prompts"),
    ([[[7, 8], [9]]], "in a list of prompts"),
    (torch.tensor([4, 5]).to_sparse(), "cannot be read"),
    (torch.empty(2, dtype=torch.long, device="meta"), "cannot be read"),
    ([torch.empty((), dtype=torch.long, device="meta")], "cannot be read"),
]
ITSELF: list = []
ITSELF.append(ITSELF)
REFUSED.append((ITSELF, "token ids"))


@pytest.mark.parametrize(
    ("bad", "said"), REFUSED, ids=[f"{i} {type(bad).__name__}" for i, (bad, _) in enumerate(REFUSED)]
)
def test_whatever_else_is_refused_in_a_sentence(model, bad, said):
    with pytest.raises(InputError, match=said):
        tokenise(model, bad)
    if not (isinstance(bad, list) and not bad):
        with pytest.raises(InputError, match=said):
            observe(model, bad)


def test_an_empty_prompt_among_others_is_not_left_out(model):
    for prompts in ([[7], []], [[], "ab"], ["ab", torch.empty(0, dtype=torch.long)]):
        with pytest.raises(InputError, match="no tokens"):
            observe(model, prompts)


def test_marks_are_said(model):
    said = {text: " ".join(tokenise(model, text).notes) for text in ("\ufeffab", "a\\nb", "ab ", "ab\n")}
    assert "byte order mark" in said["\ufeffab"] and "no line break" in said["a\\nb"] and "space" in said["ab "]
    assert said["ab\n"] == ""
    (note,) = tokenise(model, "ab\r").notes  # what a shell leaves of the last line of a file from Windows
    assert "carriage return" in note


def test_a_prompt_with_nul_is_saved(default_model, tmp_path):
    from probes import ActivationPatching, Surprisal
    from workbench import open_result, save

    result = Surprisal().run(default_model, "one\0two")
    again = open_result(save(result, tmp_path / "nul.nc"))
    assert "⟨00⟩" in again["token_text"].values and '"one\\u0000two"' in again.attrs["provenance"]
    if default_model.sizes.n_layers > 2:
        patched = ActivationPatching(corrupt="one\0two", site="attn_out", target=" a")
        with pytest.raises(InputError, match="equal lengths"):
            patched.run(default_model, "one two")


def test_run_takes_what_observe_takes(model):
    from probes import Surprisal

    need = Need((RESID_POST,), keep, dims="pos d_model")
    for form in (np.array([IDS]), {"input_ids": list(IDS)}):
        result = run(model, form, [Surprisal()])["surprisal"]
        assert result["surprisal"].shape == (5,) and observe(model, form, [need])[need].shape[2] == 5


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
_ANYTHING = st.recursive(
    _LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["role", "content", "input_ids", "attention_mask", "messages", "type", "text"]), inner
        )
    ),
    max_leaves=12,
)


@settings(max_examples=examples(150), deadline=None)
@given(_ANYTHING)
def test_anything_is_prompts_or_a_sentence(value):
    try:
        found = prompts_of(value)
    except InputError as error:
        assert len(str(error)) < 600
    else:
        assert all(isinstance(one, Prompt) for one in found)


@settings(max_examples=examples(60), deadline=None)
@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=125), min_size=1, max_size=40))
def test_any_text_is_its_tokens(text):
    model = _spelling_model()
    tokens = tokenise(model, text)
    behind = int(tokens.bos)
    assert tokens.text == text and "".join(tokens.strings[behind:]) == text
    assert tokenise(model, list(tokens.ids)).ids == tokens.ids
    for pos, character in enumerate(text):
        assert tokens.spans.piece(pos + behind) == character


def _spelling_model(kept=[]):  # noqa: B006 (made once)
    if not kept:
        kept.append(wrap(tiny_hf("gpt2"), spelling(), name="tiny-spelling"))
    return kept[0]
