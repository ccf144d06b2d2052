"""The spec: what is wrong is a sentence with file and line, whatever it is."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from probes import CATALOG
from tests.tiny_models import spelling, tiny_hf
from workbench import batch, wrap
from workbench.batch.prompts.items import collect
from workbench.batch.spec import n_bytes, read_spec
from workbench.errors import InputError, RefusedError

GOOD = """name = "heads"

[[models]]
name = "toy-induction"

[[prompts]]
group = "some"
texts = ["a", "b"]
tokens = 12

[[analyses]]
name = "norms"
params = { threshold = 0.3 }
"""


def written(tmp_path, text):
    path = tmp_path / "spec.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shortest_spec_that_means_something(tmp_path):
    read = read_spec(written(tmp_path, GOOD))
    assert read.spec.prompts[0].texts == ("a", "b") and read.folder == tmp_path.resolve()
    assert read_spec(read.spec.model_dump(exclude_none=True)).spec == read.spec


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "tokens = 12",
            'tokens = "12"',
            r"prompts\[0\].tokens = '12' in .*spec.toml, line 9; expected a valid integer",
        ),
        ("tokens = 12", "token = 12", r"prompts\[0\].token in .*line 9; expected one of tokens"),
        ("tokens = 12", "tokens = 1", "line 9; expected greater than or equal to 2"),
        ('texts = ["a", "b"]', "", r"line 6; expected one of texts, ids, file"),
        ('texts = ["a", "b"]', 'texts = ["a"]\ncorpus = "prose"', "expected one of texts"),
        (
            'texts = ["a", "b"]',
            'texts = ["a"]\nn = 24',
            r"line 6; expected n beside generator, .*; limit says",
        ),
        ('texts = ["a", "b"]', 'corpus = "prose"\nn = 100', "n beside generator, and not beside corpus; limit says"),
        ('texts = ["a", "b"]', 'corpus = "prose"\ncolumn = "a"', "column beside file, and not beside corpus"),
        ('texts = ["a", "b"]', 'texts = ["a"]\ncolumns = { corrupt = "b" }', "columns beside template, and not beside"),
        ('texts = ["a", "b"]', "ids = [[1, 2]]\nbos = true", "bos beside texts or file or corpus or template, and not"),
        (
            'name = "norms"',
            'name = "norms"\ncolumns = { threshold = "t" }',
            "line 11; expected threshold in params or in",
        ),
        ('name = "norms"', "", r"no analyses\[0\].name in .*line 11"),
        (
            '[[analyses]]\nname = "norms"',
            '[[analyses]]\nname = "norms"\n[[analyses]]\nname = "norms"',
            "'norms' is there",
        ),
        ('name = "heads"', 'name = "../heads"', "name = '../heads' in .*line 1"),
        ('name = "toy-induction"', 'name = "a"\nfolder = "b"', r"line 3; expected one of name, folder"),
        ('[[models]]\nname = "toy-induction"', "", "no models"),
        (
            'name = "toy-induction"',
            'name = "a"\ndevice_map = "fast"',
            r"device_map = 'fast' in .*line 5; .*one of auto",
        ),
        ('name = "toy-induction"', 'name = "a"\ndevice_map = { x = -1 }', r"line 5; .*a table of modules and devices"),
        ('name = "toy-induction"', 'name = "a"\ndevice = "cpu"\ndevice_map = "auto"', "one of device, device_map"),
        ("group", "group = ", "not TOML .*line 7"),
        ('name = "heads"', 'name = "heads"\nseed = -1', "seed = -1 in .*line 2"),
        ('name = "heads"', 'name = "heads"\n[limits]\nmemory = "much"', "expected a size such as"),
        ('name = "heads"', f'name = "heads"\n[limits]\ndisk = "{400 * "9"} TB"', "expected a size such as"),
        ('name = "heads"', 'name = "heads"\n[limits]\nmemory = "0 GB"', 'a size such as "8 GB", not .0 GB'),
        ('name = "heads"', 'name = "東京"', "at most 100 letters, digits, .* the first a letter of A to Z or a digit"),
        ('group = "some"', 'group = "a/b"', r"at most 100 letters, digits, spaces and _\.\+-, the first a letter or a"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, old, new, said):
    assert old in GOOD
    with pytest.raises(InputError, match=said):
        read_spec(written(tmp_path, GOOD.replace(old, new, 1)))


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(InputError, match="not UTF-8"):
        read_spec(tmp_path / "a.toml")
    for path in (tmp_path / "none.toml", tmp_path, "a\0b"):
        with pytest.raises(InputError, match="no spec at"):
            read_spec(path)
    (tmp_path / "deep.toml").write_text(f"name = {5_000 * '['}")
    for path, said in ((tmp_path / "deep.toml", "nested too deeply"), ("/dev/zero", "a device")):
        with pytest.raises(InputError, match=said):
            read_spec(path)


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
_NAMES = st.sampled_from(["name", "models", "prompts", "analyses", "limits", "keep", "seed", "interventions", "x"])


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(_NAMES, _VALUES, max_size=6), st.text(max_size=60))
def test_no_spec_gives_a_traceback(tmp_path_factory, given_spec, text):
    path = tmp_path_factory.getbasetemp() / "fuzz.toml"
    path.write_text(text, encoding="utf-8", errors="replace")
    for source in (given_spec, path):
        try:
            read_spec(source)
        except InputError as error:
            assert "; expected" in str(error)


def test_groups_are_called_in_any_script(tmp_path):
    read = read_spec(written(tmp_path, GOOD.replace('group = "some"', 'group = "группа 東京"')))
    assert read.spec.prompts[0].group == "группа 東京"


def collected(tmp_path, prompts, limits=""):
    text = GOOD.replace('texts = ["a", "b"]', prompts) + limits
    return collect(read_spec(written(tmp_path, text)), wrap(tiny_hf("llama"), spelling(), name="spells"))


@pytest.mark.parametrize("slot", ["{a:>99999999}", "{a:d}", "{a!r}", "{b:{a}}", "{}", "{a.__class__}", "{0}"])
def test_a_slot_holds_a_name_and_nothing_else(tmp_path, slot):
    """A format would be another text, an error of Python's, or all memory."""
    with pytest.raises(InputError, match=f"the slot {re.escape(slot)} in .*line 8; expected one of a, b"):
        collected(tmp_path, f'template = "x {slot}"\nslots = {{ a = ["x"], b = ["y"] }}')


@pytest.mark.parametrize(
    "prompts",
    ['generator = "random-tokens"\nn = 1000000000\nlength = 8',
     'template = "{a}{b}{c}{d}"\n' + "".join(f"slots.{s} = {[f'{s}{i}' for i in range(200)]}\n" for s in "abcd")],
)  # fmt: skip
def test_more_prompts_than_fit_are_refused_before_they_are_made(tmp_path, prompts):
    with pytest.raises(
        RefusedError, match=r"Got 1,[06]00,000,000 prompts, whose plan alone takes about .* GB of memory"
    ):
        collected(tmp_path, prompts)
    few = "".join(f"{line}\n" for line in prompts.splitlines()) + "limit = 3"
    assert len(collected(tmp_path, few)) == 3


def test_more_prompts_than_fit_are_refused_while_they_are_read(tmp_path, monkeypatch):
    monkeypatch.setattr("workbench.batch.prompts.items._LOOK", 10)
    (tmp_path / "many.txt").write_text("\n".join(f"line {i}" for i in range(100)))
    limits = '[limits]\nmemory = "50 kB"\n'
    with pytest.raises(RefusedError, match=r"Got 30 prompts, whose plan alone takes about 0\.1 MB of memory"):
        collected(tmp_path, 'file = "many.txt"', limits)
    assert len(collected(tmp_path, 'file = "many.txt"\nlimit = 20', limits)) == 20


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ('name = "surprizal"', "'surprizal' in .*line 12"),
        ('name = "surprisal"\nparams = { top_k = 0 }', "top_k=0 in .*line 13"),
        ('name = "surprisal"\ncolumns = { answer = "a" }', "'answer' .*line 13"),
    ],
)
def test_analyses_are_looked_at_before_a_model_is_loaded(tmp_path, wrong, said):
    """A model of many GB was loaded, and then a misspelt name was said."""
    text = GOOD.replace('name = "toy-induction"', 'folder = "not-there"').partition('name = "norms"')[0] + wrong
    with pytest.raises(InputError, match=said):
        batch.plan(written(tmp_path, text), tmp_path / "run", catalog=CATALOG)


def test_sizes():
    assert [n_bytes(t) for t in (None, "8 GB", "1.5kB", "12")] == [None, 8 * 10**9, 1500, 12]
