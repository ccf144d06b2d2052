"""What every analysis promises, as checks of any view: those of the catalog, and one that a user writes.

    hold(VIEW, tiny_model("llama"))

Each check takes a `Case`: a view with parameters that are quick, on a small model, with what its run left behind.
Read `case`, then the checks by what they are about: `introduction`, `numbers`, `interventions`, `passes`, `shown`,
`selections`.
"""

from collections.abc import Callable
from typing import Any

import xarray as xr

from tests.contract.case import LONG, Case
from tests.contract.interventions import honours_interventions_or_refuses
from tests.contract.introduction import (
    asks_for_a_prompt,
    display_parameters_are_for_what_is_drawn,
    introduces_itself,
    parameters_check_themselves,
    predicts_its_cost,
)
from tests.contract.numbers import (
    has_a_key_of_its_own,
    keeps_the_conventions,
    pauses_after_two_passes_at_most,
    progress_is_told,
    runs_with_every_choice_or_says_why_not,
    says_its_finding,
    says_where_it_comes_from,
)
from tests.contract.passes import (
    a_longer_neighbour_changes_nothing,
    a_restart_from_a_layer_equals_the_full_run,
    equal_needs_are_one,
    no_hook_is_left_after_a_bug_in_a_reducer,
    reducers_return_fresh_tensors,
    watching_leaves_the_logits_bit_equal,
)
from tests.contract.selections import any_selection_is_answered, claims_are_of_what_is_shown
from tests.contract.shown import (
    figures_serialise_and_stay_small,
    saved_and_opened_it_is_the_same,
    tables_are_frames,
    tables_are_no_larger_than_the_result,
)
from workbench.analysis.kinds import OnPrompt, Study
from workbench.analysis.run import run
from workbench.analysis.view import View
from workbench.models.model import Model

__all__ = ["LONG", "OF_ALL", "OF_PASSES", "OF_PROMPTS", "Case", "checks_of", "hold"]

OF_ALL = (
    introduces_itself, parameters_check_themselves, display_parameters_are_for_what_is_drawn, predicts_its_cost,
    asks_for_a_prompt, keeps_the_conventions, says_where_it_comes_from, says_its_finding, has_a_key_of_its_own,
    runs_with_every_choice_or_says_why_not, progress_is_told, pauses_after_two_passes_at_most,
    honours_interventions_or_refuses,
    reducers_return_fresh_tensors, saved_and_opened_it_is_the_same, tables_are_no_larger_than_the_result,
    figures_serialise_and_stay_small,
    tables_are_frames, claims_are_of_what_is_shown, any_selection_is_answered,
)  # fmt: skip
OF_PASSES = (
    equal_needs_are_one, watching_leaves_the_logits_bit_equal, no_hook_is_left_after_a_bug_in_a_reducer,
    a_restart_from_a_layer_equals_the_full_run,
)  # fmt: skip
OF_PROMPTS = (a_longer_neighbour_changes_nothing,)


def checks_of(kind: type) -> tuple[Callable[[Case], None], ...]:
    """Those that an analysis of this kind is held to."""
    more = () if issubclass(kind, Study) else OF_PASSES
    return (*OF_ALL, *more, *(OF_PROMPTS if issubclass(kind, OnPrompt) else ()))


def hold(view: View, model: Model, **quick: Any) -> Case:
    """Hold a view to all of it, alone and twice; returns what was run."""
    case = Case(view, model, quick)
    for check_ in checks_of(view.analysis):
        check_(case)
    again = run(model, case.prompt, [view.analysis.of(quick)])[view.name]
    xr.testing.assert_identical(again, case.result)
    return case
