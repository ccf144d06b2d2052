"""Prompts as people type them."""

import pytest

from tests.tiny_models import induction_toy, spelling, tiny_hf
from workbench import Prompt, wrap
from workbench.errors import InputError
from workbench.models.prompt import tokenise
from workbench.models.typed import typed


def test_ids_are_read_where_there_is_no_tokenizer_and_where_they_are_marked():
    toy, speller = induction_toy(), wrap(tiny_hf("llama"), spelling(), name="speller")
    assert typed(toy, "3 7,9").ids == typed(toy, "#3 #7 #9").ids == (3, 7, 9)
    assert typed(speller, "#3 #7 #9").ids == (3, 7, 9)
    assert typed(speller, "3 7").ids == tokenise(speller, "3 7").ids != (3, 7)  # a text
    assert typed(speller, Prompt.ids([1, 2])).ids == (1, 2)
    with pytest.raises(InputError, match="token ids separated by spaces"):
        typed(toy, "three")
