"""Interventions reach every pass of an analysis, or it says why they cannot."""

import json

import numpy as np
import pytest
import xarray as xr

from tests.contract.case import EDIT, Case
from workbench.analysis.kinds import Study
from workbench.errors import RefusedError
from workbench.observation import observe


def honours_interventions_or_refuses(case: Case) -> None:
    """They change the numbers, stand in provenance and key, and leave no trace; or a sentence says why not."""
    if not case.analysis.editable:
        with pytest.raises(RefusedError, match=f"{case.view.name} with interventions .*Leave the interventions out"):
            case.analysis.run(case.model, case.prompt, interventions=[EDIT])
        return
    try:
        edited = case.analysis.run(case.model, case.prompt, interventions=[EDIT])
    except RefusedError as reason:
        assert str(EDIT) in str(reason) or "intervention" in str(reason)
        return
    assert json.loads(edited.attrs["provenance"])["interventions"] == [str(EDIT)]
    assert edited.attrs["spec_key"] != case.result.attrs["spec_key"]
    shared = [n for n in edited.data_vars if n in case.result and edited[n].dtype.kind == "f"]
    alike = [n for n in shared if edited[n].shape == case.result[n].shape]
    assert len(alike) < len(shared) or any(
        not np.array_equal(edited[n], case.result[n], equal_nan=True) for n in alike
    ), "the same numbers with a head taken out"
    if not isinstance(case.analysis, Study):
        by_hand = _by_hand(case)
        for name in by_hand.data_vars:
            xr.testing.assert_equal(edited[name].variable, by_hand[name].variable)


def _by_hand(case: Case) -> xr.Dataset:
    """What it makes of a pass that was edited by hand."""
    tokens, needs, fields = case.asked()
    read = {p % len(tokens[0]) for p in case.analysis.read_positions(len(tokens[0]))}
    positions = (sorted(read) or "last") if case.analysis.shares_pass else "none"
    seen = observe(case.model, tokens, needs, fields=fields, positions=positions, interventions=[EDIT])
    return case.analysis.analyse(seen)
