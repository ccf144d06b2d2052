"""Cells: one analysis of one item on one model. Their keys say what is computed and nothing of who computes it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from workbench.analysis.code import code_digest
from workbench.analysis.keys import digest
from workbench.batch.prompts.items import Items
from workbench.batch.spec import AnalysisSpec, Spec, Where
from workbench.batch.values.rows import Reduction
from workbench.errors import InputError
from workbench.models.model import Model

__all__ = ["Asked", "asked", "bound", "made"]

_SHORT = 32  # hex digits of a cell's key
_NOWHERE = Where()


@dataclass(frozen=True)
class Asked:
    """An analysis of a spec with its parameters, on a model that carries the interventions of the batch.

    columns: parameters that each item has its own value of, and the column that it stands in.
    """

    analysis: Any
    columns: Mapping[str, str]
    reduction: Reduction
    model: Model

    @property
    def name(self) -> str:
        """Of the analysis."""
        return self.analysis.name

    @property
    def prompted(self) -> bool:
        """Whether it is computed of each item; else once a model."""
        return _reads(self.analysis)

    @cached_property
    def base(self) -> str:
        """The key of everything but the item: weights, code, parameters, interventions, what is read off a result."""
        code = code_digest(Reduction)
        return digest([self.analysis.spec_key(self.model, None), self.reduction.positions, code])[:_SHORT]

    def cell(self, ids: Sequence[int] | None, columns: Mapping[str, str]) -> str:
        """The key of this analysis of an item; ids is None where it reads no prompt."""
        own = {parameter: columns[column] for parameter, column in self.columns.items()}
        return digest([self.base, None if ids is None else list(ids), own])[:_SHORT]

    def cells(self, items: Items) -> list[str]:
        """The keys of all items; of an analysis that reads no prompt, its only one."""
        if not self.prompted:
            return [self.cell(None, {})]
        return [self.cell(items.ids(i), items.columns[i]) for i in range(len(items))]


def asked(spec: Spec, catalog: Any, model: Model, where: Where = _NOWHERE) -> list[Asked]:
    """The analyses of a spec. model: as it was edited. where: the spec's file, which errors name. Raises as `made`."""
    named = zip(spec.analyses, made(spec, catalog, where), strict=True)
    return [Asked(analysis, dict(one.columns), Reduction(one.positions), model) for one, analysis in named]


def made(spec: Spec, catalog: Any, where: Where = _NOWHERE) -> list[Any]:
    """The analyses of a spec by themselves: of no model yet, so that none is loaded for a misspelt name.

    Raises InputError for unknown analyses, parameters and values, and for one that reads a prompt where there is none.
    """
    found = []
    for number, one in enumerate(spec.analyses):
        with where.of("analyses", number, "name"):
            kind = catalog.get(one.name)
        with where.of("analyses", number, "columns"):
            _check_columns(one, kind)
        with where.of("analyses", number, "params"):
            analysis = _made(one, kind, spec.seed)
        if _reads(analysis) and not spec.prompts:
            raise InputError(f"{one.name} without prompts", "[[prompts]] in the spec", "Add some")
        if one.columns and not _reads(analysis):
            raise InputError(f"columns for {one.name}", "an analysis that reads a prompt", "Leave them out")
        found.append(analysis)
    return found


def _reads(analysis: Any) -> bool:
    """Whether an analysis is of prompts."""
    return bool(analysis.reads_prompt() or analysis.shares_pass)


def _check_columns(one: AnalysisSpec, kind: Any) -> None:
    known = {parameter.name for parameter in kind.parameters()}
    for name in one.columns:
        if name not in known:
            raise InputError(
                f"the parameter {name!r} for {one.name}", f"one of {', '.join(sorted(known)) or 'none'}", "Correct it"
            )


def _made(one: AnalysisSpec, kind: Any, seed: int) -> Any:
    given = dict(one.params)
    if "seed" in {parameter.name for parameter in kind.parameters()}:
        given.setdefault("seed", seed)
    return kind.of(given)


def bound(analysis: Any, columns: Mapping[str, str], values: Mapping[str, str]) -> Any:
    """The analysis with an item's own values. Raises InputError for a value that may not be used."""
    if not columns:
        return analysis
    parameters = {parameter.name: parameter for parameter in type(analysis).parameters()}
    own = {name: parameters[name].parse(values[column]) for name, column in columns.items()}
    return analysis.replaced(**own)
