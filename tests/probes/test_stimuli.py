"""Prompts of indirect objects: all differ, so that what was found on some is tested on others."""

import pytest

from probes import CATALOG
from probes.routes.task_heads import FlowRouteTaskHeads
from probes.stimuli import _NAMES as NAMES
from probes.stimuli import ioi_prompts, names_of
from tests.tiny_models import spelling, tiny_hf, tiny_model
from workbench import wrap
from workbench.errors import InputError

MOST = 12 * 11 * 4 * 4 * 3  # ordered pairs of names, places, things, templates


def texts(prompts):
    return [text for one in prompts for text in (one["task"], one["swapped"])]


@pytest.mark.parametrize("seed", range(5))
def test_no_prompt_comes_twice_whatever_its_part(seed):
    """Of 100 pairs to rank on and 100 to evaluate on, two seeds of three had one in both."""
    found = texts(ioi_prompts(400, seed))
    assert len(set(found)) == 800
    assert not set(texts(ioi_prompts(400, seed + 1, apart_from=ioi_prompts(400, seed)))) & set(found)


def test_all_there_are_and_no_more():
    assert len(set(texts(ioi_prompts(MOST)))) == 2 * MOST
    some = ioi_prompts(100)
    for n, others in ((MOST + 1, []), (MOST - 99, some)):
        with pytest.raises(InputError, match=f"at most {n - 1}, which all differ"):
            ioi_prompts(n, apart_from=others)


def test_fewer_are_the_first_of_more():
    assert ioi_prompts(20, 3) == ioi_prompts(200, 3)[:20]


@pytest.mark.parametrize("seed", range(3))
def test_heads_of_a_task_are_ablated_on_other_prompts(seed):
    """Those of the next seed were taken, of which some were the same."""
    found_on, tested_on = FlowRouteTaskHeads(n_prompts=200, seed=seed)._prompts(NAMES)
    assert len(found_on) == len(tested_on) == 200 and not set(texts(found_on)) & set(texts(tested_on))


def spelling_but_for(names):
    """A tokenizer that cuts all words into letters but these, behind a space."""
    tokenizer = spelling()
    tokenizer.add_tokens([f" {name}" for name in names])
    return tokenizer


def test_people_have_names_that_are_single_tokens_of_the_model():
    """Of a name in pieces it was said that targets go on behind others, on prompts that nobody had typed."""
    known = NAMES[2:7]
    hf = tiny_hf("llama")
    tokenizer = spelling_but_for(known)
    hf.resize_token_embeddings(len(tokenizer))
    model = wrap(hf, tokenizer, name="knows five")
    assert names_of(model) == known
    found = CATALOG.view("head-survey").analysis(n_prompts=6).run(model)
    assert {text.split(" of ")[1].split("'")[1].strip() for text in found["measured"].values} <= set(known)


@pytest.mark.parametrize("name", ["head-survey", "flow-route-task-heads", "circuit-evaluation", "circuit-edges"])
def test_a_tokenizer_that_cuts_names_is_named(name):
    analysis = CATALOG.view(name).analysis
    given = {"task": "indirect object"} if "circuit" in name else {"top": 2} if "route" in name else {}
    few = wrap(tiny_hf("llama"), spelling(), name="speller")
    with pytest.raises(InputError, match=r"indirect objects on speller, whose tokenizer cuts names .' Martin' into 7"):
        analysis.of(given).run(few, "the cat")


@pytest.mark.parametrize("name", ["circuit", "edge-rankings", "explain", "head-survey", "circuit-evaluation"])
def test_a_task_needs_a_tokenizer(name):
    """`Got text; expected token ids` was said, of text that nobody had given."""
    given = {} if name == "head-survey" else {"task": "indirect object"}
    with pytest.raises(InputError, match="which has no tokenizer; expected a model that reads English"):
        CATALOG.view(name).analysis.of(given).run(tiny_model("llama"))
