"""What people call: whatever is given for another thing is taken or refused in a sentence, by every name of theirs."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr

import workbench
from apps.explorer import show
from apps.explorer.web import window
from probes import CATALOG, LogitLens
from tests.example_probe import AttentionEntropy
from workbench import (
    PATTERN,
    RESID_PRE,
    Ablate,
    Add,
    Attend,
    Attention,
    AttentionEdge,
    AttentionKey,
    Clamp,
    Expert,
    ExpertNeurons,
    Force,
    Head,
    Knockout,
    Need,
    Neurons,
    Patch,
    Prompt,
    Residual,
    Scale,
    Site,
    Steer,
    WorkbenchError,
    Z,
    batch,
    dataset,
    difference,
    expert_post,
    keep,
    load,
    measure_means,
    model_card,
    observe,
    open_result,
    read_pairs,
    read_prompts,
    record,
    run,
    save,
    tables,
    wrap,
)
from workbench.errors import InputError
from workbench.intervene import FreezeNormScale, FreezePatterns, units_of
from workbench.intervene.text import phrase
from workbench.models.prompt import tokenise
from workbench.observation.recording import record_all

IDS = [1, 2, 3, 1, 2]


def mean_key(pattern, site, by=None):
    """by: whatever it is, it tells two needs apart."""
    return pattern.mean(-1)


def refuse(*given, **more):
    raise InputError("a page", "none in this test", "See what comes before it")


class Odd:
    """Of no kind that anything takes; its class may be called as a function of the user's own."""

    def __init__(self, *given, **more):
        self.given = given

    def __repr__(self):
        return "something odd"


# Made anew for each call: a generator is used up by it.
ODD: dict[str, Callable[[], Any]] = {
    "None": lambda: None, "text": lambda: "last", "no text": lambda: "", "bytes": lambda: b"last",
    "a surrogate": lambda: "\udcff", "NUL": lambda: "a\0b", "a number": lambda: 5, "a negative one": lambda: -7,
    "zero": lambda: 0, "half": lambda: 0.5, "NaN": lambda: float("nan"), "infinity": lambda: float("inf"),
    "large": lambda: 10**30, "True": lambda: True, "complex": lambda: 1j, "[]": list, "{}": dict, "()": tuple,
    "[None]": lambda: [None], "[text]": lambda: ["pattern"], "nested": lambda: [[1], [2, [3]]],
    "a generator": lambda: (number for number in (0, 1)), "a set": lambda: {0, 1}, "a mapping": lambda: {"a": 1},
    "numpy": lambda: np.arange(3), "numpy's number": lambda: np.float32(1.0), "numpy's texts": lambda: np.array(["a"]),
    "a tensor": lambda: torch.ones(2, 2), "a scalar tensor": lambda: torch.tensor(1), "a dtype": lambda: torch.int8,
    "a dataset": xr.Dataset, "a hook": lambda: PATTERN, "a unit": lambda: Head(0, 0),
    "a class": lambda: Odd, "an analysis": lambda: LogitLens,
    "a module": lambda: np, "a function": lambda: print, "an object": Odd, "a path": lambda: Path("nowhere"),
}  # fmt: skip


@pytest.fixture(scope="module")
def surface(tmp_path_factory) -> dict[str, tuple[Callable[..., Any], dict[str, Any]]]:
    """What people call, with arguments that fit."""
    folder = tmp_path_factory.mktemp("surface")
    model = load("toy-induction")
    need = Need((PATTERN,), mean_key, dims="head query")
    seen, source = observe(model, IDS, [need]), record(model, IDS, [Z, PATTERN])
    means, result = measure_means(model, [IDS]), AttentionEntropy().run(model, IDS)
    file, pairs = folder / "prompts.txt", folder / "pairs.csv"
    file.write_text("one\ntwo\n")
    pairs.write_text("clean,corrupt\na,b\n")
    saved = save(result, folder / "result.nc")
    spec = {"name": "a", "models": [{"name": "toy-induction"}], "prompts": [{"group": "a", "ids": [IDS]}]}
    spec["analyses"] = [{"name": "induction-on-prompt"}]
    where = {"positions": (0,), "rows": (0,)}
    calls: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
        "load": (load, {"name": "toy:nowhere", "dtype": torch.float32, "device": "cpu", "revision": None,
                        "allow_network": False, "check": False, "step": None, "seed": None, "progress": None}),
        "wrap": (wrap, {"model": Odd(), "tokenizer": None, "name": "a", "badge": "", "revision": None}),
        "observe": (observe, {"model": model, "prompts": [IDS], "needs": [need], "positions": "last",
                              "interventions": [], "fields": {"a": torch.zeros(1)}, "start": None, "stop": None,
                              "batch_tokens": 64, "progress": None}),
        "Need": (Need, {"hooks": (Z,), "reduce": keep, "dims": "pos head d_head", "params": {"positions": (0,)},
                        "layers": (0,)}),
        "a need's positions": (lambda **given: observe(model, IDS, [Need((Z,), keep, "pos head d_head", given)]),
                               {"positions": (0,)}),
        "a need's parameters": (lambda **given: observe(model, IDS, [Need((PATTERN,), mean_key, "head query", given)]),
                                {"by": 2.0}),
        "a need's layers": (lambda layers: observe(model, IDS, [Need((Z,), keep, "pos head d_head", layers=layers)]),
                            {"layers": [1]}),
        "keep": (keep, {"activation": torch.ones(1, 2, 3), "site": Site(0, torch.ones(1, 2), torch.ones(1, 2),
                 torch.tensor([2]), {}, model), "positions": None}),
        "observation[]": (lambda need: seen[need], {"need": need}),
        "observation.array": (seen.array, {"need": need}),
        "observation.layers": (seen.layers, {"need": need}),
        "observation.prompt": (seen.prompt, {"row": 0}),
        "record": (record, {"model": model, "prompt": IDS, "hooks": [Z], "layers": [0]}),
        "record_all": (record_all, {"model": model, "prompts": [IDS], "hooks": [Z], "layers": [0],
                                    "interventions": []}),
        "measure_means": (measure_means, {"model": model, "reference": [IDS], "hooks": [Z], "n_tokens": 8, "piece": 4}),
        "run": (run, {"model": model, "prompt": IDS, "analyses": [AttentionEntropy()], "interventions": [],
                      "progress": None, "partial": None, "allow_network": False}),
        "analysis.run": (AttentionEntropy().run, {"model": model, "prompt": IDS, "interventions": [], "progress": None,
                                                  "partial": None, "allow_network": False}),
        "analysis.of": (LogitLens.of, {"given": {"top_k": 3}}),
        "an analysis": (LogitLens, {"top_k": 3}),
        "edited": (model.edited, {"interventions": [Ablate(Head(0, 0))]}),
        "weights": (model.weights, {"layer": 0}),
        "n_neurons": (model.n_neurons, {"layer": 0}),
        "expert_weights": (model.expert_weights, {"layer": 0, "expert": 0}),
        "Prompt": (Prompt, {"text": None, "messages": None, "token_ids": IDS, "bos": None}),
        "Prompt.chat": (Prompt.chat, {"messages": [{"role": "user", "content": "a"}]}),
        "Prompt.ids": (Prompt.ids, {"token_ids": IDS}),
        "tokenise": (tokenise, {"model": model, "prompt": IDS}),
        "dataset": (dataset, {"observation": None, "coords": {"head": [0, 1]},
                              "a": ("head", np.zeros(2), "nats", (0, None), "named")}),
        "a variable": (lambda **given: dataset(a=tuple(given.values())),
                       {"dims": "head", "values": np.zeros(2), "units": "nats", "bounds": (0, 1), "long_name": "b"}),
        "save": (save, {"result": result, "path": folder / "again.nc"}),
        "open_result": (open_result, {"path": saved}),
        "tables": (tables, {"result": result}),
        "difference": (difference, {"a": result, "b": result}),
        "read_prompts": (read_prompts, {"source": file, "column": "", "format": "text", "encoding": "utf-8"}),
        "read_pairs": (read_pairs, {"source": pairs, "columns": None, "format": "csv", "encoding": "utf-8"}),
        "model_card": (model_card, {"model": model, "analyses": [LogitLens], "results": None}),
        "units_of": (units_of, {"text": "L0H1"}),
        "phrase": (phrase, {"text": "L0H1 mean"}),
        "expert_post": (expert_post, {"expert": 0}),
        "CATALOG.get": (CATALOG.get, {"name": "logit-lens"}),
        "CATALOG.view": (CATALOG.view, {"name": "logit-lens"}),
        "a figure": (CATALOG.view("logit-lens").figures[0], {"result": result}),
        "batch.plan": (batch.plan, {"spec": spec, "folder": folder / "a", "catalog": CATALOG,
                                    "models": {"toy-induction": model}, "retry_failed": False,
                                    "allow_network": False, "base": None}),
        "batch.run": (batch.run, {"spec": folder / "none.toml", "folder": folder, "catalog": CATALOG, "models": None,
                                  "progress": None, "said": None, "max_failures": None, "retry_failed": False,
                                  "allow_network": False, "base": None, "cluster": None}),
        "batch.open": (batch.open, {"folder": folder / "a"}),
        "batch.worker": (batch.worker, {"folder": folder / "b", "catalog": CATALOG, "models": None, "progress": None,
                                        "max_failures": None, "allow_network": False, "patience": 1.0}),
        "Cluster": (batch.Cluster, {"address": None, "workers": 1}),
        "show": (show, {"model": model, "prompt": IDS, "interventions": [], "probes": [], "base_path": None, "port": 0,
                        "height": 800, "memory": 1.0, "runs": None}),
    }  # fmt: skip
    units = {
        "Head": (Head, {"layer": 0, "head": 1}), "Attention": (Attention, {"layer": 0}),
        "MLP": (workbench.MLP, {"layer": 0}), "Neurons": (Neurons, {"layer": 0, "neurons": (0, 1)}),
        "Expert": (Expert, {"layer": 0, "expert": 0}), "Residual": (Residual, {"layer": 0, "pos": 1}),
        "ExpertNeurons": (ExpertNeurons, {"layer": 0, "expert": 0, "neurons": (0,)}),
        "AttentionEdge": (AttentionEdge, {"layer": 0, "head": 0, "query": 2, "key": 1}),
        "AttentionKey": (AttentionKey, {"layer": 0, "head": 0, "key": 1}),
    }  # fmt: skip
    edits = {
        "Ablate": (Ablate, {"unit": Head(0, 1), "how": "zero", "reference": None, **where}),
        "Ablate by mean": (Ablate, {"unit": Head(0, 1), "how": "mean", "reference": means}),
        "Ablate by resampling": (Ablate, {"unit": Head(0, 1), "how": "resample", "reference": source}),
        "Add": (Add, {"unit": Neurons(0, (0,)), "value": 1.0, **where}),
        "Attend": (Attend, {"unit": Head(0, 1), "to": "own-token", "rows": (0,)}),
        "Clamp": (Clamp, {"unit": Neurons(0, (0,)), "value": 1.0, **where}),
        "Force": (Force, {"unit": Expert(0, 0), **where}),
        "FreezeNormScale": (FreezeNormScale, {"source": source, "rows": None}),
        "FreezePatterns": (FreezePatterns, {"source": source, "layers": (0,), "rows": None}),
        "Knockout": (Knockout, {"queries": (3,), "keys": (1,), "layers": (0,), "heads": (0,), "rows": (0,)}),
        "Patch": (Patch, {"hook": Z, "layer": 0, "source": source, "units": (0,), **where}),
        "Scale": (Scale, {"unit": Head(0, 1), "factor": 0.5, **where}),
        "Steer": (Steer, {"layer": 0, "direction": torch.ones(model.sizes.d_model), "strength": 1.0, "hook": RESID_PRE,
                          **where}),
    }  # fmt: skip
    carried = lambda make: lambda **given: observe(model, IDS, interventions=[make(**given)])
    taken_away = lambda make: lambda **given: carried(Ablate)(unit=make(**given))
    calls |= {name: (taken_away(make), given) for name, (make, given) in units.items()}
    return calls | {name: (carried(make), given) for name, (make, given) in edits.items()}


def test_whatever_is_given_to_what_people_call_is_taken_or_refused_in_a_sentence(surface, tmp_path, monkeypatch):
    """Every parameter of every call in turn: a result, or an error of ours; and what fits does fit."""
    monkeypatch.chdir(tmp_path)  # a text may be the name of a file
    monkeypatch.setattr(window, "start", refuse)
    broken = []
    for name, (call, fitting) in surface.items():
        for parameter, (kind, make) in itertools.product(fitting, ODD.items()):
            try:
                call(**{**fitting, parameter: make()})
            except WorkbenchError as error:
                assert len(str(error)) < 3_000, f"{name}({parameter}={kind})"
            except Exception as error:
                broken.append(f"{name}({parameter}={kind}): {type(error).__name__}: {error}")
    assert not broken, "\n".join([f"{len(broken)} calls", *broken])


def test_every_public_name_is_called(surface):
    called = {call for call, _ in surface.values()}
    known = {name for name in workbench.__all__ if name in surface or getattr(workbench, name) in called}
    hooks = {name for name in workbench.__all__ if isinstance(getattr(workbench, name), type(PATTERN))}
    made_by_others = {"Model", "Observation", "Site", "WorkbenchError"}
    assert {*workbench.__all__} == known | hooks | made_by_others
