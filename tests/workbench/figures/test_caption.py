"""Figures that are taken away say what they are of."""

import json
import re

import plotly.graph_objects as go
import pytest

from tests.workbench.storage.made import mixed
from workbench.figures.caption import caption, captioned


def of(**record):
    known = {"analysis": "x", "model": {"name": "m-1", "badge": "dequantised"}, "prompts": ["Über <b> $x$"]}
    return mixed().assign_attrs(provenance=json.dumps(known | record))


def test_prompt_model_changes_and_sentence_are_there():
    assert caption(of(interventions=["Ablate(L1H2 by zero)"]), "Found.") == [
        "Prompt: Über <b> $x$",
        "Model: m-1, dequantised, with Ablate(L1H2 by zero)",
        "Found.",
    ]
    assert caption(of())[-1] == "Made up."  # its summary


def test_the_prompt_that_it_was_held_against_is_there():
    """A figure of patching says nothing without it."""
    given = of(params={"corrupt": "The other one"})
    assert caption(given)[:2] == ["Prompt: Über <b> $x$", "Corrupt prompt: The other one"]
    assert (
        caption(of(params={"corrupt": ""}).assign_attrs(shown_corrupt="A made one"))[1] == "Corrupt prompt: A made one"
    )
    assert caption(of(params={"corrupt": ""})) == caption(of())


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ({"prompts": ["The other one"], "token_ids": [0, 5]}, ["Minus that of the prompt: The other one"]),
        ({"prompts": [None], "token_ids": [0, 5]}, ["Minus that of the prompt: token ids 0 5"]),
        ({"prompts": [[{"role": "user", "content": "Hi"}]]}, ["Minus that of the prompt: user: Hi"]),
        ({"prompts": ["Über <b> $x$"], "token_ids": [0, 4]}, []),  # of the same prompt: the sentence says of what
        ({}, []),
        ({"prompts": 3, "token_ids": "x"}, []),  # a stranger's
    ],
)
def test_the_prompt_that_a_difference_subtracts_is_there(before, said):
    """A figure of one run minus that of another prompt said only the first."""
    given = of(token_ids=[0, 4], difference={"from": before, "to": {}})
    assert caption(given)[1:-2] == said


@pytest.mark.parametrize("prompts", [[None], [], ["a", "b"], [[{"role": "user", "content": "Hi"}]], [3]])
def test_any_record_of_prompts_has_a_caption(prompts):
    lines = caption(of(prompts=prompts))
    assert any("m-1" in line for line in lines)
    if isinstance(prompts[0] if prompts else None, list):
        assert lines[0] == "Prompt: user: Hi"


def test_a_caption_takes_its_own_room_and_is_no_markup():
    figure = go.Figure(go.Bar(y=[1])).update_layout(title_text="Heads", margin_t=40, height=300)
    long = of(prompts=["word " * 200])
    drawn = captioned(figure, long, "<i>said</i>")
    text = drawn.layout.title.text
    assert text.startswith("Heads<br>") and "<i>" not in text and "&lt;i&gt;said" in text
    lines = len(re.findall("<br>", text))
    assert drawn.layout.margin.t == 40 + 17 * lines and drawn.layout.height == 300 + 17 * lines and lines >= 5
