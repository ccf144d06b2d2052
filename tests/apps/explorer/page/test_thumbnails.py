"""What stands below the Start of a study: an example of its figure, of what is said to be one, and small."""

from types import SimpleNamespace

from apps.explorer.callbacks.figure import message, not_here
from apps.explorer.engine.jobs import Fate, State
from apps.explorer.page.thumbnails import FOLDER, example, examples
from probes import CATALOG
from tests.apps.explorer.page.test_card import text_of
from workbench.analysis.kinds import kind_of

STUDIES = [name for name in CATALOG.names if kind_of(CATALOG.get(name)) == "study"]
# What cannot be drawn beforehand, and why.
WITHOUT = {
    "token-erasure-probes": "probes are trained first",
    "token-erasure-accuracy": "probes are trained first",
    "token-erasure-vocabulary": "probes are trained first",
}


def test_every_study_has_a_small_example_that_says_what_it_is_of():
    assert set(STUDIES) - set(WITHOUT) <= set(examples()) <= set(CATALOG.names) - set(WITHOUT)
    for name, on in examples().items():
        picture = (FOLDER / f"{name}.webp").read_bytes()
        assert picture[:4] == b"RIFF" and picture[8:12] == b"WEBP" and len(picture) < 40_000
        assert on.startswith(("toy", "smollm2-135m", "a mixture of experts with random weights"))
        (figure,) = example(CATALOG.view(name))
        assert f"Example, on {on}" in text_of(figure) and name in figure.children[0].src
    assert sum(file.stat().st_size for file in FOLDER.iterdir()) < 600_000
    assert {file.stem for file in FOLDER.glob("*.webp")} == set(examples())


def test_an_analysis_without_one_gets_none():
    assert example(CATALOG.view("logit-lens")) == []


def test_it_stands_below_start_until_there_is_something_else_to_see():
    views = {name: CATALOG.view(name) for name in ("attention-knockout", "backcopy-formation")}
    engine = SimpleNamespace(standing=views)  # all that is asked of it
    said = text_of(message(engine, "attention-knockout", None, None))
    assert said.index("Start") < said.index("Example, on")
    running = Fate(State.RUNNING, "job")
    assert "Example" not in text_of(message(engine, "attention-knockout", None, running))
    words = text_of(not_here(views["backcopy-formation"], "is no toy"))
    assert words.startswith("This view is for other models: this one is no toy.") and "Example, on toy:" in words
