"""The plan: which cells are missing, and the shards that they are computed in.

Items are sorted by length and dealt into shards of fixed composition; a batch of a shard holds items of one length, so
nothing is padded. What an earlier plan has dealt stays as it was dealt: a run that was broken goes on with the same
batches, and so with the same bits; what is added makes new shards.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from workbench.analysis.keys import digest
from workbench.batch import schema
from workbench.batch.cells import Asked
from workbench.batch.prompts.items import Items
from workbench.batch.prompts.packed import Packed
from workbench.batch.spec import Limits

__all__ = ["Shard", "batches", "dealt", "missing"]

_PROMPTS = 512  # of a shard, however short: their rows are in memory together
Cells = dict[str, tuple[int, int]]  # which item and which analysis a cell is of


@dataclass(frozen=True)
class Shard:
    """What is computed and written together.

    model: its label; weights: its hash. analyses: names, as in the spec. ids: of each item (None: the analyses read no
    prompt). columns: texts of each item that analyses read. cells: by analysis, one key an item. batch_tokens: most
    tokens of one pass. attempt: how often the same cells were computed together before, and failed.
    """

    model: str
    weights: str
    analyses: tuple[str, ...]
    ids: Packed | None
    columns: tuple[Mapping[str, str], ...]
    cells: tuple[tuple[str, ...], ...]
    batch_tokens: int
    attempt: int = 0
    key: str = field(default="")

    def __post_init__(self) -> None:
        made_of = [self.weights, self.cells, self.batch_tokens, *([self.attempt] if self.attempt else [])]
        object.__setattr__(self, "key", digest(made_of)[:32])

    @property
    def n_prompts(self) -> int:
        """Items; 1 where the analyses read none."""
        return 1 if self.ids is None else len(self.ids)

    @property
    def n_tokens(self) -> int:
        """Tokens of all items."""
        return 0 if self.ids is None else self.ids.n_tokens

    @property
    def all_cells(self) -> Iterable[str]:
        """Of all analyses."""
        return (cell for cells in self.cells for cell in cells)

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        held = {name: getattr(self, name) for name in self.__dataclass_fields__}
        ids = None if self.ids is None else list(self.ids)
        return {**held, "ids": ids, "columns": [dict(one) for one in self.columns]}

    @classmethod
    def of(cls, record: dict[str, Any]) -> "Shard":
        """From what JSON holds. Raises ValueError for what is no shard."""
        ids = schema.shard(record)["ids"]
        return cls(
            record["model"],
            record["weights"],
            tuple(record["analyses"]),
            None if ids is None else Packed(ids),
            tuple(record["columns"]),
            tuple(tuple(cells) for cells in record["cells"]),
            record["batch_tokens"],
            record.get("attempt", 0),
        )

    def beside(self, finished: Collection[str]) -> "Shard":
        """This shard, or where it is finished already, and so failed, one more attempt at it."""
        found = self
        while found.key in finished:
            found = replace(found, attempt=found.attempt + 1)
        return found


def missing(wanted: Collection[str], done: Collection[str], earlier: Sequence[Shard]) -> tuple[list[Shard], set[str]]:
    """What an earlier plan left to do that still is wanted, as it was dealt; and the cells that no shard has."""
    left = {cell for cell in wanted if cell not in done}
    kept = []
    for shard in earlier:
        cells = set(shard.all_cells)
        if cells <= left:
            kept.append(shard)
            left -= cells
    return kept, left


def dealt(
    label: str,
    items: Items,
    analyses: Sequence[Asked],
    cells: Sequence[Sequence[str]],
    left: Collection[str],
    limits: Limits,
) -> list[Shard]:
    """Shards for the cells that are left, of one model. cells: by analysis, one key an item.

    Items of the same analyses are sorted by length and key, so that the order of a spec's tables is no matter.
    """
    shards = []
    for index, one in enumerate(analyses):
        if not one.prompted and cells[index][0] in left:
            shards.append(_shard(label, [one], None, (), ((cells[index][0],),), limits))
    together: dict[tuple[int, ...], list[int]] = {}
    for item in range(len(items)):
        wanted = tuple(i for i, one in enumerate(analyses) if one.prompted and cells[i][item] in left)
        if wanted:
            together.setdefault(wanted, []).append(item)
    for wanted, members in sorted(together.items()):
        chosen = sorted(wanted, key=lambda i: analyses[i].name)
        members.sort(key=lambda item: (items.length(item), cells[chosen[0]][item]))
        for part in _slices(items, members, [analyses[i] for i in chosen], limits.shard_tokens):
            own = tuple(tuple(cells[i][item] for item in part) for i in chosen)
            ids, columns = Packed(map(items.ids, part)), tuple(items.columns[item] for item in part)
            shards.append(_shard(label, [analyses[i] for i in chosen], ids, columns, own, limits))
    return shards


def _shard(label: str, analyses: Sequence[Asked], ids: Any, columns: Any, cells: Any, limits: Limits) -> Shard:
    weights = analyses[0].model.identity.key
    return Shard(label, weights, tuple(one.name for one in analyses), ids, columns, cells, limits.batch_tokens)


def _slices(items: Items, members: Sequence[int], analyses: Sequence[Asked], most: int) -> Iterable[list[int]]:
    """Runs of items whose work is about that of `most` tokens through one bare pass and a few analyses of it.

    Studies bring passes of their own, hundreds a prompt: a shard holds few prompts of them, so that a worker that dies
    loses as little, and several have something to share.
    """
    shared = [one for one in analyses if one.analysis.shares_pass]
    studies = [one for one in analyses if not one.analysis.shares_pass]
    part: list[int] = []
    taken = 0.0
    for item in members:
        n = items.length(item)
        passes = (1 + _cost(shared, n)) / 4 + _cost(studies, n)
        work = n * passes
        if part and (taken + max(work, n) > most or len(part) == _PROMPTS):
            yield part
            part, taken = [], 0.0
        part.append(item)
        taken += max(work, n)
    if part:
        yield part


def _cost(analyses: Sequence[Asked], n: int) -> float:
    """In bare passes of a prompt of n tokens."""
    return sum(one.analysis.cost(one.model.sizes, n) for one in analyses)


def batches(lengths: Sequence[int], batch_tokens: int) -> Iterable[range]:
    """Runs of items of one length that fit into one pass; a longer item is a batch of its own."""
    first = 0
    for i in range(1, len(lengths) + 1):
        if i == len(lengths) or lengths[i] != lengths[first] or (i - first + 1) * lengths[first] > batch_tokens:
            yield range(first, i)
            first = i
