"""The plan: every cell in exactly one shard, the same shards whatever the order, and what was dealt stays dealt."""

import json
import tracemalloc
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.analysis.keys import digest
from workbench.batch.prompts.items import Items, Member
from workbench.batch.prompts.packed import Packed
from workbench.batch.shards import Shard, batches, dealt, missing
from workbench.batch.spec import Limits

LIMITS = Limits(batch_tokens=16, shard_tokens=40)


@dataclass
class Made:
    """As `cells.Asked`, of no model."""

    name: str
    prompted: bool = True
    model: object = field(default_factory=lambda: SimpleNamespace(identity=SimpleNamespace(key="w"), sizes=None))
    analysis: object = field(default_factory=lambda: SimpleNamespace(cost=lambda sizes, n: 0.5, shares_pass=True))

    def cells(self, items):
        n = len(items) if self.prompted else 1
        return [digest([self.name, items.ids(i) if self.prompted else None])[:32] for i in range(n)]


def items_of(prompts):
    items = Items()
    for i, ids in enumerate(prompts):
        items.add(ids, {}, Member(0, "g", str(i), "here", ""))
    return items


def plan(prompts, names, done=(), earlier=()):
    items, analyses = items_of(prompts), [Made(name, prompted=name != "alone") for name in names]
    cells = [one.cells(items) for one in analyses]
    wanted = {cell for some in cells for cell in some}
    kept, left = missing(wanted, set(done), list(earlier))
    return wanted, kept, dealt("m", items, analyses, cells, left, LIMITS)


prompts_st = st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=12).map(tuple), min_size=1, max_size=40)
names_st = st.lists(st.sampled_from(["a", "b", "c", "alone"]), min_size=1, max_size=4, unique=True)


@settings(max_examples=25, deadline=None)
@given(prompts_st, names_st, st.randoms())
def test_every_cell_once_and_the_order_is_no_matter(prompts, names, random):
    wanted, _, shards = plan(prompts, names)
    cells = [cell for shard in shards for cell in shard.all_cells]
    assert len(cells) == len(set(cells)) and set(cells) == wanted
    other, others = list(prompts), list(names)
    random.shuffle(other)
    random.shuffle(others)
    assert {shard.key for shard in plan(other, others)[2]} == {shard.key for shard in shards}


@settings(max_examples=25, deadline=None)
@given(prompts_st, prompts_st, names_st, st.randoms())
def test_what_is_added_is_all_that_is_computed(first, more, names, random):
    _, _, shards = plan(first, names)
    finished = [shard for shard in shards if random.random() < 0.5]
    done = {cell for shard in finished for cell in shard.all_cells}
    rest = [shard for shard in shards if shard not in finished]
    all_wanted, kept, fresh = plan(first + more, [*names, "d"], done, rest)
    assert kept == rest  # with the composition, and so the bits, that they were dealt
    cells = [cell for shard in (*kept, *fresh) for cell in shard.all_cells]
    assert len(cells) == len(set(cells)) and set(cells) == all_wanted - done


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 40))
def test_a_batch_is_of_one_length_and_fits(lengths, most):
    lengths = sorted(lengths)
    parts = list(batches(lengths, most))
    assert [i for part in parts for i in part] == list(range(len(lengths)))
    for part in parts:
        assert len({lengths[i] for i in part}) == 1
        assert len(part) == 1 or len(part) * lengths[part[0]] <= most


def test_a_study_of_many_passes_has_shards_of_few_prompts():
    items = items_of([[i, i + 1, i + 2] for i in range(12)])
    study = Made("study")
    study.analysis.cost, study.analysis.shares_pass = lambda sizes, n: 6.0, False
    sizes = {}
    for chosen in ([Made("cheap")], [Made("cheap"), study]):
        cells = [one.cells(items) for one in chosen]
        made = dealt("m", items, chosen, cells, {c for own in cells for c in own}, LIMITS)
        sizes[len(chosen)] = [shard.n_prompts for shard in made]
    # three tokens of 6 and 0.4 passes are 19: two of them fit into 40; of 0.4 passes and at least one token each, 13 do
    assert sizes == {1: [12], 2: [2] * 6}


def test_a_shard_has_no_more_prompts_than_rows_may_be_in_memory(monkeypatch):
    items, limits = items_of([[i] for i in range(30)]), Limits(shard_tokens=10**6)
    cells = [Made("a").cells(items)]
    monkeypatch.setattr("workbench.batch.shards._PROMPTS", 12)
    made = dealt("m", items, [Made("a")], cells, set(cells[0]), limits)
    assert [shard.n_prompts for shard in made] == [12, 12, 6]


def test_a_shard_comes_back_from_json_and_keeps_its_key():
    shard = plan([(1, 2), (3,)], ["a", "b"])[2][0]
    assert Shard.of(shard.record()) == shard
    assert Shard.of(shard.record() | {"model": "another name"}).key == shard.key


def test_the_same_prompt_twice_is_one_item_and_counts_once_in_its_group():
    items = items_of([(1, 2), (3, 4), (1, 2)])
    assert (len(items), len(items.members), items.repeated) == (2, 2, 1)
    items.add((1, 2), {}, Member(0, "another group", "", "", ""))
    assert (len(items), len(items.members), items.repeated) == (2, 3, 1)
    items.add((1, 2), {"answer": "x"}, Member(0, "g", "", "", ""))  # another question about the same tokens
    assert (len(items), len(items.members), items.repeated) == (3, 4, 1)


@given(prompts_st)
def test_packed_ids_are_the_ids(prompts):
    packed = Packed(prompts)
    assert list(packed) == prompts and len(packed) == len(prompts) and packed == Packed(prompts)
    assert packed.lengths == list(map(len, prompts)) and packed.n_tokens == sum(map(len, prompts))
    assert [packed[i] for i in range(-len(prompts), len(prompts))] == prompts * 2
    assert list(packed[1:3]) == prompts[1:3] and packed != Packed([*prompts, (1,)])
    shard = Shard("m", "w", ("a",), packed, ({},) * len(prompts), (("c",) * len(prompts),), 16)
    assert Shard.of(json.loads(json.dumps(shard.record()))) == shard


def test_ids_that_no_vocabulary_has_are_no_shard():
    with pytest.raises(ValueError, match="greater than maximum"):
        Packed([(2**31,)])
    with pytest.raises(IndexError):
        Packed([(1,)])[1]


def test_a_plan_takes_some_bytes_a_token():
    """Of a million prompts of 400 tokens: three gigabytes, where tuples of numbers would be thirty."""
    n, length = 300, 400
    names = ["a"]
    tracemalloc.start()
    items = items_of([tuple(range(i, i + length)) for i in range(1000, 1000 + n)])
    cells = [one.cells(items) for one in map(Made, names)]
    shards = dealt("m", items, list(map(Made, names)), cells, {cell for some in cells for cell in some}, LIMITS)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(shard.n_prompts for shard in shards) == n
    assert held / n < 2 * 4 * length + 3_000  # twice, as items and as shards, and what names a prompt


def test_an_attempt_is_another_shard_of_the_same_cells():
    shard = Shard("m", "w", ("a",), Packed([(1, 2)]), ({},), (("c",),), 16)
    again = shard.beside({shard.key})
    assert again.key != shard.key and (again.cells, again.attempt) == (shard.cells, 1)
    assert shard.beside({again.key}) is shard
    assert shard.beside({shard.key, again.key}).attempt == 2
    assert Shard.of(json.loads(json.dumps(again.record()))) == again
