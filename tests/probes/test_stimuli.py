"""Prompts of indirect objects: all differ, so that what was found on some is tested on others."""

import pytest

from probes.routes.task_heads import FlowRouteTaskHeads
from probes.stimuli import ioi_prompts
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
    found_on, tested_on = FlowRouteTaskHeads(n_prompts=200, seed=seed)._prompts()
    assert len(found_on) == len(tested_on) == 200 and not set(texts(found_on)) & set(texts(tested_on))
