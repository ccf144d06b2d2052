"""A self-check that was passed is kept for the same circumstances, and for no others."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.tiny_models import spelling, tiny_hf
from workbench import load, wrap
from workbench.files import sealed, unsealed
from workbench.loading import bridge, passed, pretrained
from workbench.loading.toys.families import random_model
from workbench.models.selfcheck import Item, SelfCheck
from workbench.processor import Processor


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty one."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "selfchecks"


@pytest.fixture
def measured(monkeypatch):
    """The models whose self-check was made, in order."""
    made, plain = [], pretrained.selfcheck

    def selfcheck(model, *rest):
        made.append(model.name)
        return plain(model, *rest)

    monkeypatch.setattr(pretrained, "selfcheck", selfcheck)
    return made


@pytest.fixture
def passes(monkeypatch):
    """What was measured of models by passes while bridges were put around them, in order."""
    made = []
    for name in ("discarding", "measured"):
        plain = getattr(bridge, name)
        monkeypatch.setattr(bridge, name, lambda *args, name=name, plain=plain: made.append(name) or plain(*args))
    return made


@pytest.fixture
def directory(tiny_dir, tmp_path):
    """A model of one's own to change."""
    return shutil.copytree(tiny_dir, tmp_path / "model")


def test_the_same_weights_are_checked_once_and_again_when_asked(directory, cache, measured):
    first = load(str(directory))
    second = load(str(directory))
    assert len(measured) == 1 and second.selfcheck == first.selfcheck and second.selfcheck.passed
    assert second.selfcheck.measured.startswith("measured 20") and second.selfcheck.measured.endswith(" UTC")
    moved = shutil.copytree(directory, directory.with_name("elsewhere"))
    assert load(str(moved)).selfcheck == first.selfcheck and len(measured) == 1  # the name is no circumstance
    assert load(str(directory), check=True).selfcheck.passed and len(measured) == 2


def other_rotation(directory, monkeypatch):
    """The same weights read in another way."""
    config = json.loads((directory / "config.json").read_text())
    config["rope_parameters"] = {**config.get("rope_parameters", {}), "rope_type": "default", "rope_theta": 500.0}
    (directory / "config.json").write_text(json.dumps(config))


def one_weight(directory, monkeypatch):
    file = directory / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][3] += 0.01
    save_file(weights, file, metadata={"format": "pt"})


def other_versions(directory, monkeypatch):
    monkeypatch.setattr(passed, "version", lambda library: "99.0")


def other_processor(directory, monkeypatch):
    monkeypatch.setattr(passed, "this_processor", lambda: Processor("AVX9", bfloat16=True, float16=True))


def other_code(directory, monkeypatch):
    monkeypatch.setattr(passed, "_code", lambda: "another")


CHANGES = (other_rotation, one_weight, other_versions, other_processor, other_code)


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_whatever_is_another_is_measured_and_checked_anew(directory, cache, measured, passes, monkeypatch, change):
    load(str(directory))
    change(directory, monkeypatch)
    load(str(directory))
    assert len(measured) == 2 and len(list(cache.iterdir())) == 2
    assert passes == ["discarding", "measured"] * 2


def test_another_number_format_is_checked_anew(directory, cache, measured):
    load(str(directory))
    load(str(directory), dtype=torch.float16)
    load(str(directory), dtype=torch.float16)
    assert len(measured) == 2


def test_what_was_measured_of_a_model_is_kept_with_its_check(cache, passes, tmp_path):
    """GPT-Neo needs both: hooks inside of its attention in every layer, and a window of 8 in the second."""
    random_model("gpt_neo").save_pretrained(tmp_path / "neo")
    spelling().save_pretrained(tmp_path / "neo")
    first, again = load(str(tmp_path / "neo")), load(str(tmp_path / "neo"))
    assert passes == ["discarding", "measured"]
    assert again.sizes == first.sizes and again.sizes.sliding == (1,) and again.sizes.windows == (8,)
    assert tuple(again.adapter.native) == tuple(first.adapter.native) == (0, 1)
    ids = torch.arange(20)[None] % 90
    assert torch.equal(again.adapter.forward(ids), first.adapter.forward(ids))
    asked = load(str(tmp_path / "neo"), check=True)
    assert passes == ["discarding", "measured"] * 2 and asked.sizes == first.sizes


def cut_off(text, name):
    return text[: len(text) // 2]


def one_digit(text, name):
    """A tolerance that nobody has written."""
    assert '"tolerance": 1e-05' in text
    return text.replace('"tolerance": 1e-05', '"tolerance": 9e-05')


def another_form(text, name):
    """Under a seal of its own."""
    record = json.loads(unsealed(text.encode(), name)[0])
    record["items"][0]["passed"] = "yes"
    return sealed(json.dumps(record).encode(), name).decode()


def a_window_in_words(text, name):
    """Under a seal of its own, too."""
    record = json.loads(unsealed(text.encode(), name)[0])
    record["measured"]["windows"] = ["eight"]
    return sealed(json.dumps(record).encode(), name).decode()


def of_another_name(text, name):
    """Whole, but what was kept for another model."""
    return sealed(unsealed(text.encode(), name)[0], f"another-{name}").decode()


def nothing(text, name):
    return ""


DAMAGES = (cut_off, one_digit, another_form, a_window_in_words, of_another_name, nothing)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_file_is_made_anew(directory, cache, measured, passes, damage):
    load(str(directory))
    (file,) = cache.iterdir()
    whole = file.read_text()
    file.write_text(damage(whole, file.name))
    assert load(str(directory)).selfcheck.passed and len(measured) == 2
    load(str(directory))
    assert passes == ["discarding", "measured"] * 2
    assert len(measured) == 2 and [kept.name for kept in cache.iterdir()] == [file.name]


def test_a_check_that_did_not_pass_is_not_kept(directory, cache, monkeypatch):
    failing = SelfCheck((Item("rows", 0.3, 1e-5, False),), "two texts", "2026-01-02T03:04:05+00:00")
    monkeypatch.setattr(pretrained, "selfcheck", lambda *_: failing)
    assert not load(str(directory)).selfcheck.passed
    monkeypatch.undo()
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache.parent))
    assert not cache.exists() and load(str(directory)).selfcheck.passed


def test_a_check_that_does_not_pass_takes_the_place_of_one_that_did(directory, cache, monkeypatch):
    assert load(str(directory)).selfcheck.passed and list(cache.iterdir())
    failing = SelfCheck((Item("rows", 0.3, 1e-5, False),), "two texts", "2026-01-02T03:04:05+00:00")
    with monkeypatch.context() as broken:
        broken.setattr(pretrained, "selfcheck", lambda *_: failing)
        assert not load(str(directory), check=True).selfcheck.passed
        assert not list(cache.iterdir())  # the next load makes it again, and does not say that it was passed
        assert not load(str(directory)).selfcheck.passed


def test_where_nothing_can_be_written_it_is_made_every_time(directory, cache, measured):
    cache.parent.mkdir(parents=True)
    cache.write_text("a file where the folder belongs")
    assert load(str(directory)).selfcheck.passed and load(str(directory)).selfcheck.passed and len(measured) == 2


def test_a_model_that_was_handed_over_is_always_checked(cache, measured):
    hf = tiny_hf("qwen2")
    wrap(hf, None)
    wrap(hf, None)
    assert len(measured) == 2 and not cache.exists()
