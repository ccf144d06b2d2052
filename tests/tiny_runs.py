"""Analyses of every kind for tests of the runner: what works, what refuses, and what is broken in each place."""

import numpy as np
import torch
import xarray as xr

from workbench.analysis.kinds import OnModel, OnPrompt, Stimulus, Study
from workbench.analysis.results import dataset
from workbench.intervene import Ablate, Head, Knockout, Steer
from workbench.models.hooks import PATTERN, ROT_Q, Z
from workbench.models.prompt import Prompt, tokenise
from workbench.models.selfcheck import ROWS
from workbench.observation import Need, keep, observe
from workbench.observation.metrics import make_metric
from workbench.observation.recording import record
from workbench.observation.sweeps import base_run, values_of

IDS = Prompt.ids([4, 33, 80, 33, 12, 7])
SECTIONS = "\n\nDefinition: d.\nLimits: l.\nSource: s.\n"


def head_norm(z, site):
    """Length of every head's output at the last position."""
    return z[torch.arange(len(z)), site.lengths - 1].float().norm(dim=-1)


def broken_reducer(pattern, site):
    """Divides by zero."""
    return pattern / (1 // 0)


NORMS = Need((Z,), head_norm, dims="head")


def norms(values):
    """A result."""
    return dataset(None, norm=("layer head", values, "length", (0, None)))


class Norms(OnPrompt, name="norms", title="Norms", requires=(ROWS,)):
    __doc__ = "Of the prompt." + SECTIONS

    def needs(self, model, tokens):
        return (NORMS,)

    def analyse(self, observation):
        return norms(observation[NORMS][:, 0])


class ModelNorms(OnModel, name="model-norms", title="Model norms"):
    __doc__ = "Of a stimulus." + SECTIONS

    def stimulus(self, model, progress=None):
        return Stimulus((tokenise(model, IDS), tokenise(model, Prompt.ids([4, 5, 6]))))

    def needs(self, model, tokens):
        return (NORMS,)

    def analyse(self, observation):
        return norms(observation[NORMS].mean(1))


class StudyNorms(Study, name="study-norms", title="Study norms"):
    """By every way that passes are made.

    Definition: d.
    Limits: l.
    Source: s.
    """

    parts: int = 3
    closed = []  # noqa: RUF012 - seen by the tests

    def partials(self, model, tokens, *, progress=None, allow_network=False):
        seen = observe(model, tokens, [NORMS])[NORMS][:, 0]
        kept = record(model, tokens, [Z]).values
        recorded = torch.stack([kept[Z, layer][-1].norm(dim=-1) for layer in range(model.sizes.n_layers)])
        base = base_run(model, tokens)
        metric = make_metric(model, tokens, base.logits(model), target="#9")
        values = values_of(model, base, [[], [Ablate(Head(2, 0))]], metric)
        try:
            for part in range(self.parts):
                if progress is not None:
                    progress((part + 1) / self.parts)
                done = seen.clone()
                done[part + 1 :] = torch.nan
                found = norms(done)
                found["recorded"] = found["norm"].copy(data=recorded.numpy())
                found["values"] = ("target", values.numpy(), dict(found["norm"].attrs, valid_min=-np.inf))
                yield found
        except GeneratorExit:
            self.closed.append(part)
            raise


class Fixed(Study, name="fixed", title="Fixed"):
    __doc__ = "Stands on the model as it is." + SECTIONS
    editable = False

    def partials(self, model, tokens, *, progress=None, allow_network=False):
        yield dataset(None, allowed=("", float(allow_network), "flag", (0, 1)))


class Idle(Study, name="idle", title="Idle"):
    __doc__ = "Has nothing to say." + SECTIONS

    def partials(self, model, tokens, *, progress=None, allow_network=False):
        yield from ()


class BrokenReducer(OnPrompt, name="broken-reducer", title="Broken reducer"):
    __doc__ = "A bug where it reduces." + SECTIONS

    def needs(self, model, tokens):
        return (Need((PATTERN,), broken_reducer, dims="head query key"),)

    def analyse(self, observation):
        raise AssertionError("never reached")


class BrokenAnalysis(OnPrompt, name="broken-analysis", title="Broken analysis"):
    __doc__ = "A bug where it analyses." + SECTIONS

    def needs(self, model, tokens):
        return (NORMS,)

    def analyse(self, observation):
        return {}["nothing"]


class BrokenNeeds(BrokenAnalysis, name="broken-needs", title="Broken needs"):
    __doc__ = "A bug where it says what it needs." + SECTIONS

    def needs(self, model, tokens):
        raise AttributeError("no such thing\nand a second line")


class BrokenResult(BrokenAnalysis, name="broken-result", title="Broken result"):
    __doc__ = "A result beside the conventions." + SECTIONS

    def analyse(self, observation):
        return xr.Dataset({"x": ("nonsense", [1.0])})


class BrokenStudy(Study, name="broken-study", title="Broken study"):
    __doc__ = "A bug after its first result." + SECTIONS

    def partials(self, model, tokens, *, progress=None, allow_network=False):
        yield dataset(None, one=("", 1.0, "count", (0, None)))
        raise ZeroDivisionError("half way")


class Silent(OnPrompt, name="silent", title="Silent"):
    __doc__ = "Needs what this model has not." + SECTIONS

    def needs(self, model, tokens):
        return (Need((ROT_Q,), keep, dims="pos head d_head"),)

    def analyse(self, observation):
        raise AssertionError("never reached")


BROKEN = (BrokenReducer, BrokenAnalysis, BrokenNeeds, BrokenResult, BrokenStudy)

EDITS = [Ablate(Head(0, 1)), Knockout((5,), (1, 2), (0, 1, 2)), Steer(1, torch.linspace(-1, 2, 32))]
