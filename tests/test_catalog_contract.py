"""What every entry of the catalog promises, on five tiny models that are built in different ways.

A new analysis is held to all of this by its line in the catalog. The tiny models have no tokenizer: prompts are ids.
"""

import json
import re
from functools import cache

import numpy as np
import pytest
import torch
import xarray as xr

from probes import CATALOG
from tests.tiny_probes import probes_of_every_kind
from workbench.analysis.legacy import Param, named, pass_for, run
from workbench.analysis.results import GLOSSARY, check, open_result, save
from workbench.errors import InputError, RefusedError, WorkbenchError
from workbench.intervene import units_of
from workbench.models import selfcheck
from workbench.models.hooks import RESID_POST, RESID_PRE
from workbench.models.prompt import Prompt, tokenise
from workbench.observation import Need, keep, observe
from workbench.observation.watch import Watch

# Tokens repeat, so that analyses of repeats have something to say; 24 positions, more than the sliding window of 8.
LONG = Prompt.ids([0, *[7, 31, 64, 12, 90, 45, 7, 31, 64, 12, 90, 45, 3, 18, 77, 3, 18, 52, 7, 31, 9, 9, 60]])
# Padding is token 0, which this one holds too: an analysis that looks behind the mask finds a repeat there.
SHORT = Prompt.ids([0, *[7, 31, 64, 0, 90, 7, 31, 64, 12, 90]])
SELECTION = {"layer": 1, "head": 1, "depth": 1, "pos": 3, "query": 5, "key": 2, "unit": 4, "prompt": 0, "rank": 0}
MEGABYTE = 1_000_000
# Where an entry may refuse a tiny model: (entry, model). A refusal that is not listed here is a failure.
REFUSALS: set[tuple[str, str]] = set()

entries = pytest.mark.parametrize("name", CATALOG.names)
prompt_entries = pytest.mark.parametrize("name", [e.name for e in CATALOG if e.scope == "prompt"])
observed_entries = pytest.mark.parametrize("name", [e.name for e in CATALOG if e.scope != "study"])


class Runs:
    """Results on one model, each computed when first asked for and kept."""

    def __init__(self, model):
        self.model = model
        self.alone = cache(self._alone)

    def _alone(self, name: str) -> xr.Dataset:
        entry = CATALOG.get(name)
        return entry.run(self.model, LONG if entry.scope != "model" else None)


@pytest.fixture(scope="module")
def runs(tiny, tmp_path_factory):
    """Results on a tiny model. What entries must learn from data first is learned into a cache of the test's own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        probes_of_every_kind(tiny, tmp_path_factory.mktemp("published"))
        yield Runs(tiny)


def usable(runs: Runs, name: str) -> None:
    """Leave a test where the entry is known to refuse this model, and see that it does."""
    if (name, runs.model.name) in REFUSALS:
        with pytest.raises(RefusedError):
            runs.alone(name)
        pytest.skip(f"{name} refuses {runs.model.name}, as it should")


def asked_of(model, name: str):
    """What an entry observes with its default params: tokens, needs and fields."""
    entry = CATALOG.get(name)
    params = entry.checked({})
    if entry.scope == "model":
        stimulus = entry.stimulus(model, **params)
        return stimulus.tokens, entry.needs(model, stimulus.tokens, **params), stimulus.fields
    tokens = tokenise(model, LONG)
    return (tokens,), tuple(pass_for([entry], model, tokens, {name: params})["needs"]), {}


def pieces(kept) -> list[torch.Tensor]:
    """What was kept of a need: one tensor, or one per layer where its length differs from layer to layer."""
    return list(kept) if isinstance(kept, tuple) else [kept]


def hooks_left(model) -> int:
    points = model.adapter.bridge.hook_dict.values()
    return sum(len(p.fwd_hooks) + len(p.bwd_hooks) + len(p._forward_hooks) + len(p._forward_pre_hooks) for p in points)


def plain_logits(model, tokens) -> torch.Tensor:
    with torch.no_grad(), model.lock:
        return model.adapter.forward(torch.tensor([t.ids for t in tokens]))


def boom(resid, site):
    raise ZeroDivisionError("a bug in a probe")


# --- what an entry says of itself -------------------------------------------------------------------------------------


@entries
def test_an_entry_introduces_itself(name):
    entry = CATALOG.get(name)
    assert entry.name == name and re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
    for text in (entry.title, entry.source, entry.limits, entry.definition):
        assert len(text.strip()) >= 5
    assert entry.version >= 1
    known = {value for key, value in vars(selfcheck).items() if key.isupper() and isinstance(value, str)}
    assert set(entry.requires) <= known
    functions = (entry.needs, entry.analyse, entry.stimulus, entry.study, *entry.figures, *entry.details, *entry.claims)
    for function in filter(None, functions):  # found again by dotted path, by whoever runs it elsewhere
        assert "<" not in function.__qualname__ and function.__doc__


@entries
def test_params_describe_and_check_themselves(name):
    entry = CATALOG.get(name)
    assert entry.checked({}) == {param.name: param.default for param in entry.params}
    for param in entry.params:
        assert param.help and param.check(param.default) == param.default
        for bad in bad_values(param):
            with pytest.raises(InputError, match=param.name):
                entry.checked({param.name: bad})
    with pytest.raises(InputError, match="no_such_parameter"):
        entry.checked({"no_such_parameter": 1})


@entries
def test_display_params_are_for_what_is_drawn(name):
    """Each is taken by a figure, a detail or the sentence under the figure, and none by what computes."""
    entry = CATALOG.get(name)
    drawing = [*entry.figures, *entry.details, *filter(None, [entry.sentence])]
    computing = filter(None, [entry.needs, entry.analyse, entry.study, entry.stimulus])
    for param in entry.display:
        assert any(named(function, {param.name: None}) for function in drawing), param.name
        assert param.name not in {p.name for p in entry.params} and not any(
            named(function, {param.name: None}) for function in computing
        )
        with pytest.raises(InputError, match="Give it to the figure"):
            entry.checked({param.name: param.default})
        for bad in bad_values(param):
            with pytest.raises(InputError, match=param.name):
                entry.split({param.name: bad})
    assert entry.split({}) == (entry.checked({}), entry.shown({}))


def bad_values(param: Param) -> list:
    bad: list = [object()]
    if not param.optional:
        bad.append(None)
    if param.low is not None:
        bad.append(param.type(param.low - 1))
    if param.high is not None:
        bad.append(param.type(param.high + 1))
    if param.type is float:
        bad.append(float("nan"))
    if param.choices and param.type is str and not param.files:
        bad.append("no such choice")
    return bad


@observed_entries
def test_bad_params_reach_no_model(name):
    with pytest.raises(InputError, match="no_such_parameter"):
        CATALOG.get(name).run(None, LONG, no_such_parameter=1)


@prompt_entries
def test_a_prompt_is_asked_for(tiny, name):
    with pytest.raises(InputError, match="without a prompt"):
        CATALOG.get(name).run(tiny)


# --- what it computes -------------------------------------------------------------------------------------------------


@observed_entries
def test_a_result_keeps_the_conventions(runs, name):
    usable(runs, name)
    result = runs.alone(name)
    check(result)
    assert set(result.dims) <= set(GLOSSARY) and len(result.data_vars) > 0
    for variable in result.data_vars.values():
        assert {"units", "long_name", "valid_min", "valid_max"} <= set(variable.attrs)
        assert variable.attrs["units"] and variable.attrs["long_name"]
        assert variable.dtype != np.float16
    if "layer" in result.coords:
        assert set(result["layer"].values.tolist()) <= set(range(runs.model.sizes.n_layers))
    if "depth" in result.coords:
        assert result["depth"].min() >= 0 and result["depth"].max() <= runs.model.sizes.n_layers


@observed_entries
def test_a_result_says_where_it_comes_from(runs, name):
    usable(runs, name)
    entry, result = CATALOG.get(name), runs.alone(name)
    record = json.loads(result.attrs["provenance"])
    assert record["analysis"] == name and record["params"] == json.loads(json.dumps(entry.checked({})))
    assert record["model"]["weights_hash"] == runs.model.identity.weights_hash
    assert record["spec_key"] == result.attrs["spec_key"] and len(record["spec_key"]) == 64
    assert {"torch", "transformers", "threads"} <= set(record["stamp"])
    if entry.scope == "prompt":
        assert record["token_ids"] == list(LONG.token_ids)


@observed_entries
def test_the_same_question_has_the_same_answer(runs, name):
    usable(runs, name)
    entry = CATALOG.get(name)
    again = entry.run(runs.model, LONG if entry.scope != "model" else None)
    xr.testing.assert_identical(again, runs.alone(name))


def test_alone_equals_in_union(runs):
    """Bit for bit: prompt-scope entries share one pass of the same batch, the others run the one they run alone."""
    together = [e for e in CATALOG if e.scope != "study" and (e.name, runs.model.name) not in REFUSALS]
    union = run(together, runs.model, LONG)
    assert list(union) == [e.name for e in together]
    for name, result in union.items():
        xr.testing.assert_identical(result, runs.alone(name))


@observed_entries
def test_flags_and_choices_run_or_say_why_not(runs, name):
    usable(runs, name)
    entry = CATALOG.get(name)
    for param in entry.params:
        others = [not param.default] if param.type is bool else [c for c in param.choices if c != param.default]
        for value in others:
            try:
                result = entry.run(runs.model, LONG, **{param.name: value})
            except WorkbenchError:
                assert runs.model.sizes.parallel, f"{name} with {param.name}={value!r}"  # has no resid_mid
            else:
                assert result.attrs["spec_key"] != runs.alone(name).attrs["spec_key"]


# --- how it watches ---------------------------------------------------------------------------------------------------


@observed_entries
def test_watching_leaves_the_logits_bit_equal(runs, name):
    usable(runs, name)
    tokens, needs, fields = asked_of(runs.model, name)
    assert needs == asked_of(runs.model, name)[1] and len({hash(need) for need in needs})  # equal needs are one need
    seen = observe(runs.model, tokens, needs, fields=fields, positions="all")
    kept = [part for need in needs for part in pieces(seen[need])]
    assert all(part.dtype in (torch.float32, torch.int64, torch.int32, torch.bool) for part in kept)
    step = max(1, 4096 // max(len(t) for t in tokens))  # the batches that observe() makes
    bare = torch.cat([plain_logits(runs.model, tokens[i : i + step]) for i in range(0, len(tokens), step)])
    assert torch.equal(torch.stack(seen.logits), bare)


@observed_entries
def test_reducers_return_fresh_tensors(runs, name, monkeypatch):
    """A view of an activation would keep the whole of it alive until the end of the pass."""
    usable(runs, name)
    tokens, needs, fields = asked_of(runs.model, name)
    views, plain = [], Watch._reduce

    def watched(self, need, layer, held):
        plain(self, need, layer, held)
        kept = self.reduced[need, layer].untyped_storage().data_ptr()
        views.extend(need for activation in held.values() if activation.untyped_storage().data_ptr() == kept)

    monkeypatch.setattr(Watch, "_reduce", watched)
    observe(runs.model, tokens[:2], needs, fields={k: v[:2] for k, v in fields.items()})
    assert views == []


@observed_entries
def test_no_hook_is_left_after_a_bug_in_a_reducer(runs, name):
    usable(runs, name)
    tokens, needs, fields = asked_of(runs.model, name)
    before, bare = hooks_left(runs.model), plain_logits(runs.model, tokens[:1])
    faulty = Need((RESID_POST,), boom, layers=(1,))
    with pytest.raises(ZeroDivisionError):
        observe(runs.model, tokens, [*needs, faulty], fields=fields)
    assert hooks_left(runs.model) == before
    assert torch.equal(plain_logits(runs.model, tokens[:1]), bare)


@observed_entries
def test_a_restart_from_a_layer_equals_the_full_run(runs, name):
    usable(runs, name)
    tokens, needs, fields = asked_of(runs.model, name)
    tokens, fields = tokens[:2], {k: v[:2] for k, v in fields.items()}
    state = Need((RESID_PRE,), keep, dims="pos d_model", layers=(1,))
    full = observe(runs.model, tokens, [*needs, state], fields=fields)
    later = [need for need in needs if not need.layered or need.layers is None or 1 in need.layers]
    restarted = observe(runs.model, tokens, later, fields=fields, start=(1, full[state][0]))
    assert all(map(torch.equal, restarted.logits, full.logits))
    for need in later:
        expected = pieces(full[need])
        if need.layered:
            layers = need.layers or range(runs.model.sizes.n_layers)
            by_layer = expected if need.ragged else list(expected[0])
            expected = [part for part, layer in zip(by_layer, layers, strict=True) if layer >= 1]
        for got, part in zip(restarted[need] if need.layered else [restarted[need]], expected, strict=True):
            torch.testing.assert_close(got, part, rtol=0, atol=0, equal_nan=True)


@prompt_entries
def test_a_longer_neighbour_changes_nothing(runs, name):
    """Padding enters no number. Another batch shape re-associates sums: 1e-4 of the largest value, 1e-6 seen."""
    usable(runs, name)
    entry, model = CATALOG.get(name), runs.model
    short, long = tokenise(model, SHORT), tokenise(model, LONG)
    needs = entry.needs(model, short, **entry.checked({}))
    alone, beside = observe(model, [short], needs), observe(model, [short, long], needs)
    for need in (need for need in needs if not need.ragged):  # how many edges a row keeps is its author's to test
        row = (slice(None), 0) if need.layered else (0,)
        got, expected = beside[need][row], alone[need][row]
        lead = got.ndim - len(need.dims)
        for axis, dim in enumerate(need.dims, start=lead):
            if dim in ("pos", "query", "key") and got.shape[axis] == len(long):
                tail = got.narrow(axis, len(short), len(long) - len(short))
                assert torch.isnan(tail).all() if tail.is_floating_point() else (tail == -1).all()
                got = got.narrow(axis, 0, len(short))
        scale = float(expected.float().nan_to_num().abs().max()) or 1.0
        torch.testing.assert_close(got / scale, expected / scale, rtol=0, atol=1e-4, equal_nan=True)


# --- how it is kept and drawn -----------------------------------------------------------------------------------------


@observed_entries
def test_saved_and_opened_it_is_the_same(runs, name, tmp_path):
    usable(runs, name)
    result = runs.alone(name)
    opened = open_result(save(result, tmp_path / f"{name}.nc"))
    xr.testing.assert_equal(opened, result)
    assert opened.attrs == result.attrs
    for key, variable in result.data_vars.items():
        assert {k: opened[key].attrs[k] for k in variable.attrs} == variable.attrs


@observed_entries
def test_a_claim_is_one_that_its_study_can_test(runs, name):
    """Params of the study, and units that the model has at positions of the prompt."""
    usable(runs, name)
    entry, result = CATALOG.get(name), runs.alone(name)
    claims = entry.claimed(result, {**SELECTION, "component": 1, "neuron": 4})
    assert not entry.claims or claims or name in ("attention-sinks", "sink-rates")  # these claim where a head sinks
    assert entry.claimed(result, {}) == [] or name in ("flow-routes", "neurons")  # their own needs no selection
    for claim in claims:
        study = CATALOG.get(claim.study)
        for unit in units_of(study.checked(claim.params)["units"]):
            unit.check(runs.model)
            assert all(getattr(unit, at, 0) < len(LONG.token_ids) for at in ("pos", "query", "key"))


@observed_entries
def test_figures_serialise_and_stay_small(runs, name):
    usable(runs, name)
    entry, result = CATALOG.get(name), runs.alone(name)
    before = result.copy(deep=True)
    drawn = [figure(result) for figure in entry.figures]
    assert drawn and all(figure is not None for figure in drawn)
    drawn += [detail(result, dict(SELECTION)) for detail in entry.details]
    for figure in filter(None, drawn):
        assert len(figure.to_json()) < MEGABYTE
    xr.testing.assert_identical(result, before)  # drawing changes nothing
