"""Keys: who changes a number changes the key, who changes a comment, a docstring, a help text or a drawing does not."""

import importlib
import json
import platform
import sys
import textwrap
from types import ModuleType, SimpleNamespace

import pytest

from probes.lens.logit_lens import LogitLens
from tests.example_probe import AttentionEntropy
from workbench.analysis import code as hashed
from workbench.analysis.code import Code, code_digest
from workbench.analysis.keys import digest, spec_key
from workbench.files import sealed

PROBE = '''
"""A probe of two files."""

from typing import Annotated

from workbench import PATTERN, Need, observe
from workbench.analysis.kinds import OnPrompt
from workbench.analysis.parameters import Range
from workbench.analysis.results import dataset
from workbench.analysis.view import View

from {package}.reducers import largest
from {package} import tables

__all__ = ["Largest"]

SCALE = 2.0
_BARS = 7


class Largest(OnPrompt, name="largest", title="Largest weight"):
    """The largest weight of a head.

    Definition: its maximum.
    Limits: none.
    Source: ours.
    """

    power: Annotated[float, Range(0, 4), "exponent"] = 1.0

    def needs(self, model, tokens):
        """Every pattern."""
        return (Need((PATTERN,), largest, dims="head"),)

    def analyse(self, observation):
        """Scaled."""
        values = _scaled(observation[self.needs(None, None)[0]][:, 0])
        return dataset(observation, largest=("layer head", values**self.power, tables.UNIT, (0, None)))


def _scaled(values):
    # by a constant
    return values * SCALE


def bars(result):
    """Drawn."""
    from workbench.figures import heads_grid

    return heads_grid(result, "largest", title="Largest", limit=_BARS)


def table(result):
    """Listed."""
    return tables.rows(result)


VIEW = View(Largest, question="Where does a head look most?", figures=(bars,), tables=(table,))
'''
REDUCERS = '''
"""Reducers."""


def largest(pattern, site):
    """Largest weight."""
    return _spared(pattern).amax((2, 3))


def _spared(pattern):
    return pattern[..., 1:]


def smallest(pattern, site):
    """Of nobody."""
    return pattern.amin((2, 3))
'''
TABLES = '''
"""Units and tables."""

import {package}.wide as wide

UNIT = wide.NAMES["share"]


def rows(result):
    """A table."""
    return result.to_dataframe()
'''
WIDE = """
NAMES = {}
NAMES["share"] = "share"
UNUSED = 1
"""
FILES = {"probe": PROBE, "reducers": REDUCERS, "tables": TABLES, "wide": WIDE}


def forget() -> None:
    """What a process remembers by the names of modules; a new process would look for them again. What it remembers by
    the paths of files stays: each text has a path of its own here."""
    importlib.invalidate_caches()
    by_path = (hashed._tree, hashed._syntax, hashed._file)
    for remembered in vars(hashed).values():
        if hasattr(remembered, "cache_clear") and remembered not in by_path:
            remembered.cache_clear()


@pytest.fixture
def key_of(tmp_path, monkeypatch):
    """The digest of `Largest` in a package of these files, with some texts replaced in one of them."""
    made = []

    def made_of(changed: str = "probe", /, *replacements: tuple[str, str]) -> str:
        folder = tmp_path / str(len(made))
        made.append(folder)
        (folder / "mine").mkdir(parents=True)
        (folder / "mine/__init__.py").write_text("")
        for name, text in FILES.items():
            for old, new in replacements if name == changed else ():
                assert old in text, old
                text = text.replace(old, new)
            (folder / f"mine/{name}.py").write_text(text.replace("{package}", "mine"))
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
                patch.delitem(sys.modules, name)
            forget()
            found = code_digest(importlib.import_module("mine.probe").Largest)
            for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
                sys.modules.pop(name)
        return found

    yield made_of
    forget()


# --- files ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "old", "new"),
    [
        ("probe", "values**self.power", "values * self.power"),
        ("probe", "values * SCALE", "values / SCALE"),
        ("probe", "SCALE = 2.0", "SCALE = 3.0"),
        ("probe", "= 1.0\n", "= 2.0\n"),  # the default of a parameter
        ("probe", "Range(0, 4)", "Range(0, 5)"),
        ("probe", 'dims="head"', 'dims="query"'),
        ("probe", "import largest", "import smallest as largest"),
        ("reducers", "amax((2, 3))", "amax((3, 2))"),
        ("reducers", "[..., 1:]", "[..., 2:]"),
        ("tables", 'NAMES["share"]', 'NAMES.get("share")'),
        ("wide", '] = "share"', '] = "part"'),
        ("wide", "NAMES = {}", "NAMES = dict()"),
    ],
)
def test_whoever_changes_a_number_changes_the_key(key_of, changed, old, new):
    assert key_of(changed, (old, new)) != key_of()


@pytest.mark.parametrize(
    ("changed", "old", "new"),
    [
        ("probe", "    # by a constant\n", "    # by a constant of this file\n\n\n"),
        ("probe", '"""Scaled."""', '"""Scaled by a constant."""'),
        ("probe", "Definition: its maximum.", "Definition: the maximum of its pattern."),
        ("probe", '"exponent"', '"exponent of the weight"'),
        ("probe", 'title="Largest weight"', 'title="The largest weight"'),
        ("probe", 'title="Largest"', 'title="Where a head looks most"'),  # of a figure
        ("probe", "_BARS = 7", "_BARS = 9"),
        ("probe", "Where does a head", "Where in the prompt does a head"),
        ("probe", "figures=(bars,), tables=(table,)", "figures=(bars,)"),
        ("probe", '__all__ = ["Largest"]', '__all__ = ["Largest", "bars"]'),
        ("reducers", "amin((2, 3))", "amin((3, 2))"),  # of a neighbour that the probe does not use
        ("tables", "to_dataframe()", "to_dataframe().dropna()"),
        ("wide", "UNUSED = 1", "UNUSED = 2"),
    ],
)
def test_whoever_changes_a_word_or_a_drawing_does_not(key_of, changed, old, new):
    assert key_of(changed, (old, new)) == key_of()


def test_the_same_files_elsewhere_have_the_same_key(key_of):
    assert key_of() == key_of()


def test_a_probe_of_single_files_is_followed_into_its_neighbours(tmp_path, monkeypatch):
    """A folder of modules without a package, as one who tries something has it."""
    keys = []
    for number, constant in enumerate((1, 2, 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "my_numbers.py").write_text(
            f"def number():\n    return {constant}\n\n\ndef other():\n    return {number}"
        )
        (folder / "my_probe.py").write_text("import my_numbers\n\n\nclass Mine:\n    value = my_numbers.number()\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            forget()
            keys.append(code_digest(importlib.import_module("my_probe").Mine))
            for name in ("my_probe", "my_numbers"):
                sys.modules.pop(name)
    forget()
    assert keys[0] == keys[2] != keys[1]


def test_what_comes_by_a_star_is_followed_too(tmp_path, monkeypatch):
    """A changed constant of a module that is imported whole, by another that is, had the key of the old one."""
    keys = []
    for number, constant in enumerate((1, 2, 1)):
        folder = tmp_path / str(number)
        (folder / "mine").mkdir(parents=True)
        (folder / "mine/__init__.py").write_text("from .probe import *\n")
        (folder / "mine/probe.py").write_text("from .parts import *\n\n\nclass Mine:\n    value = doubled(3)\n")
        (folder / "mine/parts.py").write_text("from .numbers import *\n\n\ndef doubled(x):\n    return FACTOR * x\n")
        (folder / "mine/numbers.py").write_text(f"FACTOR = {constant}\n")
        with monkeypatch.context() as patch:
            patch.syspath_prepend(folder)
            forget()
            keys.append(code_digest(importlib.import_module("mine").Mine))
            for name in [name for name in sys.modules if name.split(".")[0] == "mine"]:
                sys.modules.pop(name)
    forget()
    assert keys[0] == keys[2] != keys[1]


def test_a_module_that_was_loaded_again_is_read_again(tmp_path, monkeypatch):
    """As in a notebook, while a probe is being written: a batch there took the results of the probe as it had been."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    (tmp_path / "my_parts.py").write_text("FACTOR = 2\n")
    (tmp_path / "my_probe.py").write_text("import my_parts\n\n\nclass Mine:\n    value = my_parts.FACTOR\n")
    forget()
    probe, keys = importlib.import_module("my_probe"), []
    try:
        for constant in (2, 30, 2):
            (tmp_path / "my_parts.py").write_text(f"FACTOR = {constant}\n")
            importlib.reload(sys.modules["my_parts"])
            keys += [code_digest(importlib.reload(probe).Mine), code_digest(probe.Mine)]
    finally:
        for name in ("my_probe", "my_parts"):
            sys.modules.pop(name)
        forget()
    assert keys[0] == keys[1] == keys[4] == keys[5] != keys[2] == keys[3]


def followed(kind: type) -> Code:
    code = Code()
    code.follow(kind.__module__, kind.__name__)
    return code


def test_of_the_workbench_whole_files_are_read_and_no_figures():
    files = {module for module, _ in followed(LogitLens).files}
    assert {"workbench.observation.run", "workbench.observation.watch", "workbench.models.readout"} <= files
    assert {"workbench.intervene.knockout", "workbench.analysis.results"} <= files  # what the observed pass imports
    assert not any(module.startswith(("workbench.figures", "probes", "apps", "torch")) for module in files)
    assert {module for module, _ in followed(AttentionEntropy).statements} == {"tests.example_probe"}


def test_names_that_the_workbench_hands_on_are_followed_to_their_home(tmp_path, monkeypatch):
    """`from workbench import observe` runs more than the file that says where observe lies."""
    texts = {
        "handed_one": "from workbench import measure_means\n\n\nclass Mine:\n    run = measure_means\n",
        "handed_two": "import workbench\n\n\nclass Mine:\n    run = workbench.measure_means\n",
        "handed_three": "class Mine:\n    def run(self):\n        import workbench as w\n\n"
        "        return w.measure_means()\n",
        "handed_none": "import workbench\n\n\nclass Mine:\n    run = workbench.__version__\n",
    }
    monkeypatch.syspath_prepend(tmp_path)
    forget()
    homes = {}
    for name, text in texts.items():
        (tmp_path / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        homes[name] = {module for module, _ in followed(importlib.import_module(name).Mine).files}
        sys.modules.pop(name)
    home = {"workbench", "workbench.observation.recording", "workbench.corpora"}
    assert all(home <= homes[name] for name in ("handed_one", "handed_two", "handed_three"))
    assert homes["handed_none"] == {"workbench"}
    forget()


# --- hashes that are kept ---------------------------------------------------------------------------------------------


@pytest.fixture
def followings(monkeypatch, tmp_path):
    """What was followed from an empty cache on, in order."""
    made, plain = [], Code.follow
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(Code, "follow", lambda code, *name: made.append(name) or plain(code, *name))
    forget()
    yield made
    monkeypatch.undo()
    forget()


def other_sources(monkeypatch, tmp_path):
    monkeypatch.setattr(hashed, "digest_of", lambda packages: "others")


def another_python(monkeypatch, tmp_path):
    monkeypatch.setattr(hashed, "sys", SimpleNamespace(modules=sys.modules, version="3.99"))


def a_file_before_a_library(monkeypatch, tmp_path):
    """One's own `xarray.py` in the folder that one works in: it answers now, so it belongs to the key."""
    (tmp_path / "xarray.py").write_text("Dataset = dict\n")
    monkeypatch.delitem(sys.modules, "xarray")
    monkeypatch.syspath_prepend(tmp_path)


def a_damaged_file(monkeypatch, tmp_path):
    (file,) = (tmp_path / "code").iterdir()
    file.write_text(file.read_text().replace('"digest": "', '"digest": "0'))


def another_form(monkeypatch, tmp_path):
    (file,) = (tmp_path / "code").iterdir()
    file.write_bytes(sealed(json.dumps({"digest": "0" * 64}).encode(), file.name))


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (other_sources, True),
        (another_python, True),
        (a_file_before_a_library, False),
        (a_damaged_file, True),
        (another_form, True),
    ],
)
def test_a_hash_is_kept_for_the_same_sources_and_made_anew_for_others(followings, monkeypatch, tmp_path, change, same):
    """same: whether what is made anew comes to the same, since nothing that the analysis runs on was changed."""
    first = code_digest(LogitLens)
    forget()
    assert code_digest(LogitLens) == first and len(followings) == 1
    change(monkeypatch, tmp_path)
    forget()
    assert (code_digest(LogitLens) == first) is same and len(followings) == 2


def test_what_reads_the_texts_of_python_has_another_key_in_the_next_one(followings, monkeypatch, tmp_path):
    """Documentation and sources of the interpreter are others there, and what was measured on those of the last one
    was taken from a cache that both share."""
    from probes import AttentionSinks, CausalCheck, SinkRates

    own = {"__name__": "a_notebook"}
    cell = "from workbench import measure_means\nclass Mine:\n    def run(self, m): return measure_means(m)\n"
    exec(compile(cell, "<cell>", "exec"), own)
    kinds = (LogitLens, AttentionSinks, CausalCheck, SinkRates, own["Mine"])
    before = [code_digest(kind) for kind in kinds]
    another_python(monkeypatch, tmp_path)
    monkeypatch.setattr(platform, "python_version", lambda: "3.99.1")
    forget()
    assert [code_digest(kind) == key for kind, key in zip(kinds, before, strict=True)] == [True, True] + [False] * 3


def test_the_hash_of_what_others_wrote_is_not_kept(followings, tmp_path):
    assert code_digest(AttentionEntropy) == code_digest(AttentionEntropy)
    forget()
    code_digest(AttentionEntropy)
    assert len(followings) == 2 and not (tmp_path / "code").exists()


def test_each_analysis_has_its_own_key_and_keeps_it():
    assert code_digest(LogitLens) == code_digest(LogitLens) != code_digest(AttentionEntropy)
    assert len(code_digest(LogitLens)) == 64


# --- notebooks and shells ---------------------------------------------------------------------------------------------

CELL = '''
import functools
import math

import torch

from workbench import PATTERN, Need, dataset
from workbench.analysis.kinds import OnPrompt

FLOOR = 0.5
TABLE = {"a": (1, 2), "b": [3.0]}
UNUSED = 3


@functools.cache
def weight(layer):
    """Cached."""
    return math.exp(-layer)


def largest(pattern, site, power=2):
    """Largest weight."""
    return (pattern.amax((2, 3)) ** power).clamp_min(FLOOR) * weight(site.layer) + TABLE["a"][0]


NEED = Need((PATTERN,), largest, dims="head")


def drawn(result):
    return result


class Mine(OnPrompt, name="mine", title="Mine"):
    """M.

    Definition: d.
    Limits: l.
    Source: s.
    """

    how: str = "a"

    def needs(self, model, tokens):
        return (NEED,)

    def analyse(self, observation):
        values = observation[NEED][:, 0]
        kept = [sorted(v for v in row if v in {1.0, 2.0, 3.0}) for row in values.tolist()]
        return dataset(observation, largest=("layer head", self._shifted(values), "share", None))

    @staticmethod
    def _shifted(values):
        inner = lambda x: x + 1
        return inner(values)
'''


def live(*replacements: tuple[str, str], module: str = "__main__") -> type:
    """The class of a cell that ran in a module without a file."""
    text = textwrap.dedent(CELL)
    for old, new in replacements:
        assert old in text, old
        text = text.replace(old, new)
    made = ModuleType(module)
    before = sys.modules.get(module)
    sys.modules[module] = made  # dataclasses look their module up
    try:
        exec(compile(text, "<cell>", "exec"), made.__dict__)
    finally:
        if before is not None:
            sys.modules[module] = before
    return made.Mine


@pytest.mark.parametrize("module", ["__main__", "a_shell_of_its_own"])
def test_a_class_without_a_file_has_a_key_by_its_bytecode(module):
    first, again = live(module=module), live(module=module)
    assert code_digest(first) == code_digest(again) and len(code_digest(first)) == 64
    assert code_digest(first) != code_digest(live(("x + 1", "x + 2"), module=module))
    sys.modules.pop("a_shell_of_its_own", None)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("amax((2, 3))", "amin((2, 3))"),
        ("FLOOR = 0.5", "FLOOR = 0.25"),
        ('"a": (1, 2)', '"a": (1, 3)'),
        ("power=2", "power=3"),
        ("math.exp(-layer)", "math.exp(layer)"),  # inside a cache
        ("x + 1", "x - 1"),  # inside a lambda inside a static method
        ("2.0, 3.0}", "2.0, 4.0}"),  # inside a generator
        ('dims="head"', 'dims="query"'),  # of a Need that is made beside the class
        ('how: str = "a"', 'how: str = "b"'),
        ("[:, 0]", "[:, 1]"),
    ],
)
def test_whoever_changes_a_number_in_a_notebook_changes_the_key(old, new):
    assert code_digest(live((old, new))) != code_digest(live())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('    """Largest weight."""\n', '    """Largest weight of all."""\n    # of a head\n\n'),
        ('    """Cached."""\n', ""),
        ("UNUSED = 3", "UNUSED = 4"),
        ("    return result", "    return result.copy()"),
        ("Definition: d.", "Definition: something."),
        ('title="Mine"', 'title="Of my own"'),
        ("import functools\n", "import functools\n\n\n\n"),
    ],
)
def test_whoever_changes_a_word_in_a_notebook_does_not(old, new):
    assert code_digest(live((old, new))) == code_digest(live())


def test_a_notebooks_class_runs_on_the_workbench_too():
    from workbench.analysis.bytecode import named_by

    others = named_by(live())[1]
    assert ("workbench.analysis.kinds", "OnPrompt") in others and ("workbench.analysis.results", "dataset") in others
    assert ("workbench.observation.need", "Need") in others


# --- what stands in a key ---------------------------------------------------------------------------------------------


def test_a_key_does_not_depend_on_the_order_of_parameters():
    base = ("w", [1, 2], "a", "c")
    assert spec_key(*base, {"x": 1, "y": None}) == spec_key(*base, {"y": None, "x": 1}) != spec_key(*base, {"x": 1})
    assert spec_key(*base, {"x": 1}) != spec_key(*base, {"x": True}) and spec_key(*base, {"x": 1}) != spec_key(
        *base, {"x": 1.5}
    )


def test_interventions_stand_in_a_key_in_their_order():
    key = lambda *interventions: spec_key("w", [1], "a", "c", {}, interventions=interventions)
    assert len({key(), key("one"), key("two"), key("one", "two"), key("two", "one")}) == 5


def test_a_digest_is_of_the_value():
    assert digest({"a": [1, 2.5, None]}) == digest({"a": (1, 2.5, None)}) and digest("1") != digest(1)


def test_libraries_of_another_environment_are_not_read(tmp_path, monkeypatch):
    """A key must not depend on where libraries lie, nor take the time to read all of torch."""
    from workbench.analysis.code import _is_ours

    place = tmp_path / "lib" / "site-packages" / "a_library_of_others"
    place.mkdir(parents=True)
    (place / "__init__.py").write_text("number = 1\n", encoding="utf-8")
    own = tmp_path / "own" / "a_probe_of_mine.py"
    own.parent.mkdir()
    own.write_text("number = 1\n", encoding="utf-8")
    for folder in (place.parent, own.parent):
        monkeypatch.syspath_prepend(str(folder))
    assert not _is_ours("a_library_of_others") and _is_ours("a_probe_of_mine")
