"""What every analysis promises, as checks of any view: those of the catalog, and one that a user writes.

    hold(VIEW, tiny_model("llama"))

Each check takes a `Case`: a view with parameters that are quick, on a small model, with what its run left behind.
"""

import inspect
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

from workbench.analysis.kinds import OnModel, OnPrompt, Study
from workbench.analysis.results import GLOSSARY, check, open_result, save
from workbench.analysis.run import run
from workbench.analysis.view import View, named
from workbench.errors import Cancelled, InputError, RefusedError, WorkbenchError
from workbench.intervene import Ablate, Head
from workbench.models import selfcheck
from workbench.models.hooks import RESID_POST, RESID_PRE
from workbench.models.model import Model
from workbench.models.prompt import Prompt, Tokens, tokenise
from workbench.observation import Need, keep, observe
from workbench.observation.watch import Watch

# Tokens repeat, so that analyses of repeats have something to say; 24 positions, more than the sliding window of 8.
LONG = Prompt.ids([0, *[7, 31, 64, 12, 90, 45, 7, 31, 64, 12, 90, 45, 3, 18, 77, 3, 18, 52, 7, 31, 9, 9, 60]])
# Padding is token 0, which this one holds too: an analysis that looks behind the mask finds a repeat there.
SHORT = Prompt.ids([0, *[7, 31, 64, 0, 90, 7, 31, 64, 12, 90]])
SELECTION = {"layer": 1, "head": 1, "depth": 1, "pos": 3, "query": 5, "key": 2, "unit": 4, "prompt": 0, "rank": 0}
SELECTION |= {"component": 1, "neuron": 4}
EDIT = Ablate(Head(0, 1))
MEGABYTE = 1_000_000


def hooks_left(model: Model) -> int:
    """Hooks anywhere in the model."""
    points = model.adapter.bridge.hook_dict.values()
    return sum(len(p.fwd_hooks) + len(p.bwd_hooks) + len(p._forward_hooks) + len(p._forward_pre_hooks) for p in points)


def plain_logits(model: Model, tokens: Sequence[Tokens]) -> torch.Tensor:
    """Without observing anything."""
    with torch.no_grad(), model.lock:
        return model.adapter.forward(torch.tensor([t.ids for t in tokens]))


@dataclass(eq=False)
class Case:
    """A view on a model. quick: parameters that make it small."""

    view: View
    model: Model
    quick: dict[str, Any] = field(default_factory=dict)
    views_kept: list[Need] = field(default_factory=list)  # needs whose reducers returned views of activations
    told: list[float] = field(default_factory=list)

    @cached_property
    def analysis(self) -> Any:
        """With quick parameters."""
        return self.view.analysis.of(self.quick)

    @property
    def prompt(self) -> Prompt | None:
        """Analyses that do not depend on the prompt are given none."""
        return LONG if self.analysis.prompted else None

    @cached_property
    def result(self) -> xr.Dataset:
        """Computed once; what it left behind is kept for the checks of it."""
        before, bare = hooks_left(self.model), plain_logits(self.model, [tokenise(self.model, SHORT)])
        plain = Watch._reduce

        def watched(watch: Watch, need: Need, layer: int | None, held: dict) -> None:
            plain(watch, need, layer, held)
            kept = watch.reduced[need, layer].untyped_storage().data_ptr()
            self.views_kept.extend(need for given in held.values() if given.untyped_storage().data_ptr() == kept)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Watch, "_reduce", watched)
            found = self.analysis.run(self.model, self.prompt, progress=self.told.append)
        assert hooks_left(self.model) == before
        assert torch.equal(plain_logits(self.model, [tokenise(self.model, SHORT)]), bare)
        return found

    def asked(self) -> tuple[tuple[Tokens, ...], tuple[Need, ...], dict[str, Any]]:
        """What one that shares the pass, or brings one, observes: tokens, needs and fields."""
        if isinstance(self.analysis, OnModel):
            made = self.analysis.stimulus(self.model)
            return made.tokens, self.analysis.needs(self.model, made.tokens), dict(made.fields)
        tokens = tokenise(self.model, LONG)
        return (tokens,), tuple(self.analysis.needs(self.model, tokens)), {}


def pieces(kept: Any) -> list[torch.Tensor]:
    """What was kept of a need: one tensor, or one per layer where its length differs from layer to layer."""
    return list(kept) if isinstance(kept, tuple) else [kept]


def bad_values(parameter: Any) -> list[Any]:
    """What a parameter must refuse."""
    bad: list[Any] = [object(), [parameter.default]]
    if not parameter.optional:
        bad.append(None)
    if parameter.low is not None:
        bad.append(parameter.type(parameter.low - 1))
    if parameter.high is not None:
        bad.append(parameter.type(parameter.high + 1))
    if parameter.type is float:
        bad.append(float("nan"))
    if parameter.type in (int, float):
        bad += ["3", True]
    if parameter.choices and parameter.type is str and not parameter.files:
        bad.append("no such choice")
    return bad


# --- what it says of itself -------------------------------------------------------------------------------------------


def introduces_itself(case: Case) -> None:
    """Name, texts, a question, and functions that are found again by dotted path."""
    view, kind = case.view, case.view.analysis
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", view.name) and kind.name == view.name and kind.owner == view.name
    for text in (view.title, kind.source, kind.limits, kind.definition, view.question):
        assert len(text.strip()) >= 5
    assert view.question.endswith("?") and issubclass(kind, OnPrompt | OnModel | Study)
    known = {value for key, value in vars(selfcheck).items() if key.isupper() and isinstance(value, str)}
    assert set(kind.requires) <= known
    drawing = (*view.figures, *view.details, *view.tables, *view.claims, *filter(None, [view.sentence]))
    for function in drawing:  # found again by whoever runs it elsewhere
        assert "<" not in function.__qualname__ and function.__doc__


def parameters_check_themselves(case: Case) -> None:
    """Each has a help and refuses what it must, before any model is looked at; the defaults may be used."""
    kind = case.view.analysis
    for parameter in kind.parameters():
        assert parameter.help and kind().values()[parameter.name] == parameter.default
        for bad in bad_values(parameter):
            with pytest.raises(InputError, match=f"Got {parameter.name}="):
                kind.of({parameter.name: bad})
    with pytest.raises(InputError, match=f"'no_such_parameter' for {case.view.name}"):
        kind.of({"no_such_parameter": 1})
    assert kind() == kind() and hash(kind()) == hash(kind())


def display_parameters_are_for_what_is_drawn(case: Case) -> None:
    """Each is taken by something that draws, and is no parameter of what computes."""
    view = case.view
    drawing = [*view.figures, *view.details, *view.tables, *view.claims, *filter(None, [view.sentence])]
    own = {parameter.name for parameter in view.analysis.parameters()}
    for parameter in view.display_parameters:
        assert parameter.help and parameter.name not in own
        assert any(named(function, {parameter.name: None}) for function in drawing), parameter.name
        with pytest.raises(InputError, match=f"the parameter '{parameter.name}' for {view.name}"):
            view.analysis.of({parameter.name: parameter.default})
        for bad in bad_values(parameter):
            with pytest.raises(InputError, match=f"Got {parameter.name}="):
                view.split({parameter.name: bad})
    taken = {name for function in drawing for name in _by_name_only(function)}
    assert taken <= {parameter.name for parameter in view.display_parameters}, "drawn with what nobody can give"


def _by_name_only(function: Callable) -> set[str]:
    found = inspect.signature(function).parameters.values()
    return {p.name for p in found if p.kind is p.KEYWORD_ONLY and p.default is p.empty}


def predicts_its_cost(case: Case) -> None:
    """A finite number above nothing, and no less for a longer prompt."""
    short, long = (case.analysis.cost(case.model.sizes, n) for n in (8, 24))
    assert 0 <= short <= long < math.inf
    assert all(-24 <= position < 24 for position in case.analysis.read_positions(24))


def asks_for_a_prompt(case: Case) -> None:
    """What depends on the prompt says that it needs one; what does not, runs without."""
    if case.analysis.prompted:
        with pytest.raises(InputError, match=f"{case.view.name} without a prompt"):
            case.analysis.run(case.model)
    else:
        assert json.loads(case.result.attrs["provenance"])["token_ids"] is None or case.prompt is None


# --- what it computes -------------------------------------------------------------------------------------------------


def keeps_the_conventions(case: Case) -> None:
    """Dims of the glossary, labels, units, ranges; no coordinate is named as another's dimension."""
    result = check(case.result)
    assert set(result.dims) <= set(GLOSSARY) and len(result.data_vars) > 0
    for variable in result.data_vars.values():
        assert {"units", "long_name", "valid_min", "valid_max"} <= set(variable.attrs)
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
    """In a sentence."""
    said = case.view.said(case.result)
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


# --- interventions ----------------------------------------------------------------------------------------------------


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


# --- how it watches (of what shares the pass or brings one) -----------------------------------------------------------


def equal_needs_are_one(case: Case) -> None:
    """Asked twice, it needs the same: equal, with one hash, and in the same order."""
    first, again = (case.asked()[1] for _ in range(2))
    assert len(first) > 0 and first == again and list(map(hash, first)) == list(map(hash, again))
    seen = observe(case.model, case.asked()[0][:2], [*first, *again], **_first_two(case))
    assert len(seen.results) == len(set(first))


def _first_two(case: Case) -> dict[str, Any]:
    return {"fields": {name: values[:2] for name, values in case.asked()[2].items()}, "positions": "none"}


def watching_leaves_the_logits_bit_equal(case: Case) -> None:
    """What is kept is float32 or integers."""
    tokens, needs, fields = case.asked()
    seen = observe(case.model, tokens, needs, fields=fields, positions="all")
    kept = [part for need in needs for part in pieces(seen[need])]
    assert kept and all(part.dtype in (torch.float32, torch.int64, torch.int32, torch.bool) for part in kept)
    step = max(1, 4096 // max(len(t) for t in tokens))  # the batches that observe() makes
    bare = torch.cat([plain_logits(case.model, tokens[i : i + step]) for i in range(0, len(tokens), step)])
    assert torch.equal(torch.stack(seen.logits), bare)


def reducers_return_fresh_tensors(case: Case) -> None:
    """A view of an activation would keep the whole of it alive until the end of the pass. Of every pass of a study."""
    assert case.result is not None and case.views_kept == []


def boom(resid: torch.Tensor, site: Any) -> torch.Tensor:
    """A bug in a reducer."""
    raise ZeroDivisionError("a bug in a probe")


def no_hook_is_left_after_a_bug_in_a_reducer(case: Case) -> None:
    """Of another analysis in the same pass."""
    tokens, needs, fields = case.asked()
    before, bare = hooks_left(case.model), plain_logits(case.model, tokens[:1])
    with pytest.raises(ZeroDivisionError):
        observe(case.model, tokens, [*needs, Need((RESID_POST,), boom, layers=(1,))], fields=fields)
    assert hooks_left(case.model) == before
    assert torch.equal(plain_logits(case.model, tokens[:1]), bare)


def a_restart_from_a_layer_equals_the_full_run(case: Case) -> None:
    """Bit for bit."""
    tokens, needs, fields = case.asked()
    tokens, fields = tokens[:2], {k: v[:2] for k, v in fields.items()}
    state = Need((RESID_PRE,), keep, dims="pos d_model", layers=(1,))
    full = observe(case.model, tokens, [*needs, state], fields=fields)
    later = [need for need in needs if not need.layered or need.layers is None or max(need.layers) >= 1]
    restarted = observe(case.model, tokens, later, fields=fields, start=(1, full[state][0]))
    assert all(map(torch.equal, restarted.logits, full.logits))
    for need in later:
        expected = pieces(full[need])
        if need.layered:
            layers = need.layers or range(case.model.sizes.n_layers)
            by_layer = expected if need.ragged else list(expected[0])
            expected = [part for part, layer in zip(by_layer, layers, strict=True) if layer >= 1]
        for got, part in zip(restarted[need] if need.layered else [restarted[need]], expected, strict=True):
            torch.testing.assert_close(got, part, rtol=0, atol=0, equal_nan=True)


def a_longer_neighbour_changes_nothing(case: Case) -> None:
    """Padding enters no number. Another batch shape re-associates sums: 1e-4 of the largest value, 1e-6 seen."""
    short, long = tokenise(case.model, SHORT), tokenise(case.model, LONG)
    needs = case.analysis.needs(case.model, short)
    alone, beside = observe(case.model, [short], needs), observe(case.model, [short, long], needs).prompt(0)
    both = observe(case.model, [short, long], needs)
    for need in (need for need in needs if not need.ragged):  # how many edges a row keeps is its author's to test
        got, expected = beside[need], alone[need]
        scale = float(expected.float().nan_to_num().abs().max()) or 1.0
        torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-4, equal_nan=True)
        for axis, dim in enumerate(need.dims, start=1 + need.layered):
            if dim in ("pos", "query", "key") and not (dim == "pos" and need.positions is not None):
                row = both[need].select(int(need.layered), 0).narrow(axis - 1, len(short), len(long) - len(short))
                assert torch.isnan(row).all() if row.is_floating_point() else (row == -1).all()


# --- how it is kept and drawn -----------------------------------------------------------------------------------------


def saved_and_opened_it_is_the_same(case: Case) -> None:
    """Numbers, labels, provenance and units; integers stay integers."""
    with tempfile.TemporaryDirectory() as folder:
        opened = open_result(save(case.result, Path(folder) / f"{case.view.name}.nc"))
    xr.testing.assert_equal(opened, case.result)
    assert opened.attrs == case.result.attrs
    for name, variable in case.result.variables.items():
        assert {k: opened[name].attrs[k] for k in variable.attrs} == variable.attrs
        kinds = {opened[name].dtype.kind, variable.dtype.kind}
        assert len(kinds) == 1 or kinds <= {"U", "O"}


def figures_serialise_and_stay_small(case: Case) -> None:
    """All of them, and what a click on each kind of cell draws; drawing changes nothing."""
    before = case.result.copy(deep=True)
    drawn = [case.view.drawn(figure, case.result) for figure in case.view.figures]
    assert drawn and all(figure is not None for figure in drawn)
    drawn += [case.view.drawn(detail, case.result, dict(SELECTION)) for detail in case.view.details]
    for figure in filter(None, drawn):
        assert len(figure.to_json()) < MEGABYTE
    for detail in case.view.details:
        case.view.drawn(detail, case.result, {})  # nothing is selected
    xr.testing.assert_identical(case.result, before)


def tables_are_frames(case: Case) -> None:
    """With rows, and names that say what stands in them."""
    for table in case.view.tables:
        made = case.view.drawn(table, case.result)
        assert isinstance(made, pd.DataFrame) and len(made) > 0 and all(isinstance(name, str) for name in made.columns)
        assert made.columns.is_unique


def claims_are_of_what_is_shown(case: Case) -> None:
    """Each has a title and parameters that its study takes; claims about a selection need one."""
    from probes import CATALOG
    from workbench.intervene import units_of

    for claim in case.view.claimed(case.result, SELECTION):
        analysis, _ = CATALOG.view(claim.study).split(claim.params)
        assert claim.title.strip() and analysis.name == claim.study
        units = units_of(str(analysis.values().get("units", "")))
        assert units or claim.study != "causal-check"
        for unit in units:
            unit.check(case.model)
            assert all(getattr(unit, at, 0) < len(LONG.token_ids) for at in ("pos", "query", "key"))


OF_ALL = (
    introduces_itself, parameters_check_themselves, display_parameters_are_for_what_is_drawn, predicts_its_cost,
    asks_for_a_prompt, keeps_the_conventions, says_where_it_comes_from, says_its_finding, has_a_key_of_its_own,
    runs_with_every_choice_or_says_why_not, progress_is_told, honours_interventions_or_refuses,
    reducers_return_fresh_tensors, saved_and_opened_it_is_the_same, figures_serialise_and_stay_small,
    tables_are_frames, claims_are_of_what_is_shown,
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
