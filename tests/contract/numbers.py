"""What an analysis computes: labelled results with provenance, a finding, and a key of its own."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest

from tests.contract.case import EDIT, LONG, SHORT, Case, hooks_left
from workbench.analysis.kinds import Study
from workbench.analysis.results import GLOSSARY, check
from workbench.errors import Cancelled, WorkbenchError
from workbench.models.prompt import tokenise


def keeps_the_conventions(case: Case) -> None:
    """Dims of the glossary, labels, units, ranges; nothing else bears the name of a dim: an edge has `edge_layer`."""
    result = check(case.result)
    assert set(result.dims) <= set(GLOSSARY) and len(result.data_vars) > 0
    for variable in result.data_vars.values():
        assert {"units", "long_name", "valid_min", "valid_max"} <= set(variable.attrs)
        assert variable.name not in GLOSSARY
        assert variable.attrs["units"] and variable.attrs["long_name"]
        assert variable.dtype.kind in "fiubUO" and variable.dtype != np.float16
    for name, coord in result.coords.items():
        assert name not in result.dims or coord.dims == (name,)
        assert name in result.dims or name not in GLOSSARY or coord.dims == (), name
    if "layer" in result.dims:
        assert set(result["layer"].values.tolist()) <= set(range(case.model.sizes.n_layers))
    if "depth" in result.dims:
        assert result["depth"].min() >= 0 and result["depth"].max() <= case.model.sizes.n_layers


def says_where_it_comes_from(case: Case) -> None:
    """Analysis, parameters, model, tokens, key and stamp in one JSON attribute."""
    record = json.loads(case.result.attrs["provenance"])
    assert record["analysis"] == case.view.name and record["source"] == case.view.analysis.source
    assert record["params"] == json.loads(json.dumps(case.analysis.values()))
    assert record["model"]["weights_hash"] == case.model.identity.weights_hash and record["interventions"] == []
    assert record["spec_key"] == case.result.attrs["spec_key"] and re.fullmatch("[0-9a-f]{64}", record["spec_key"])
    assert {"torch", "transformers", "threads"} <= set(record["stamp"])
    assert case.result.attrs["title"] == case.view.analysis.title
    if case.analysis.prompted:
        assert record["token_ids"] == list(LONG.token_ids)


def says_its_finding(case: Case) -> None:
    """In a sentence, of nothing that is not known."""
    said = case.view.said(case.result)
    assert not re.search(r"\b(nan|inf)\b", said), said
    assert said.strip() and said.strip()[-1] in ".!?)" and "\n" not in said.strip(), said


def has_a_key_of_its_own(case: Case) -> None:
    """The same for the same question; another one for another model, edit, parameter, and prompt if it matters."""
    tokens, other = (tokenise(case.model, prompt) for prompt in (LONG, SHORT))
    key = case.result.attrs["spec_key"]
    again = case.view.analysis.of(case.analysis.values())
    assert again.spec_key(case.model, tokens) == case.analysis.spec_key(case.model, tokens) == key
    assert (case.analysis.spec_key(case.model, other) == key) != case.analysis.prompted
    assert case.analysis.spec_key(case.model, tokens, [EDIT]) == case.analysis.spec_key(
        case.model.edited([EDIT]), tokens
    ) != key  # fmt: skip


def runs_with_every_choice_or_says_why_not(case: Case) -> None:
    """Flags and choices one by one."""
    assert case.result is not None
    for parameter in case.analysis.parameters():
        here = case.analysis.values()[parameter.name]
        others = [not here] if parameter.type is bool else [c for c in parameter.choices if c != here]
        for value in others:
            try:
                with a_cache_apart():
                    found = case.analysis.replaced(**{parameter.name: value}).run(case.model, case.prompt)
            except WorkbenchError as reason:
                may = case.model.sizes.parallel or isinstance(case.analysis, Study)
                assert may, f"{parameter.name}={value!r}: {reason}"
            else:
                assert found.attrs["spec_key"] != case.result.attrs["spec_key"]


@contextmanager
def a_cache_apart() -> Iterator[None]:
    """What is learned meanwhile is forgotten again."""
    kept = os.environ.get("WORKBENCH_CACHE")
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if kept is not None:
            shutil.copytree(kept, folder, dirs_exist_ok=True)
        patch.setenv("WORKBENCH_CACHE", folder)
        yield


def pauses_after_two_passes_at_most(case: Case) -> None:
    """Or steps of training: so long others wait, and whoever cancels, whatever it computes. Counts, not seconds."""
    assert case.result is not None and case.longest <= 2
    assert case.longest > 0 or not case.pauses  # a hook of the count that is never called would prove nothing


def progress_is_told(case: Case) -> None:
    """From 0 to 1 and never back; a cancel passes through and leaves no trace. What is kept is not made again."""
    assert case.result is not None and case.told == sorted(case.told) and all(0 <= share <= 1 for share in case.told)
    assert case.told or isinstance(case.analysis, Study)
    before, cancels = hooks_left(case.model), []

    def stop(share: float) -> None:
        cancels.append(share)
        raise Cancelled

    try:
        case.analysis.run(case.model, case.prompt, progress=stop)
    except Cancelled:
        assert len(cancels) == 1
    else:
        assert cancels == []
    assert hooks_left(case.model) == before
