"""Labelled results: conventions, keys, saving."""

import json

import numpy as np
import pytest
import torch

from tests.tiny_models import tiny_model
from workbench import Ablate, Head, Prompt, dataset, observe, open_result, save
from workbench.analysis.keys import spec_key
from workbench.analysis.results import check, stamped
from workbench.errors import InputError, UnavailableError


@pytest.fixture
def observation():
    return observe(tiny_model("llama"), Prompt.ids([5, 9, 17]))


def build(observation):
    return dataset(
        observation,
        {"rank": [0, 1]},
        score=("layer head", torch.rand(2, 4), "share", (0, 1), "a score"),
        count=("pos rank", np.array([[1, -1], [2, 3], [4, 5]]), "count", (0, None)),
        text=("pos", ["a", "<b>", "ü\n"], "text", None),
        total=("", 1.5, "nats", None),
    )


def test_labels_units_and_token_text(observation):
    result = build(observation)
    assert result["score"].dims == ("layer", "head") and result["score"].attrs["units"] == "share"
    assert result["score"].attrs["long_name"] == "a score" and result["score"].attrs["valid_max"] == 1
    assert list(result["token_text"].values) == ["#5", "#9", "#17"]
    assert json.loads(result.attrs["provenance"])["model"]["name"] == "tiny-llama"


def test_save_and_open_return_the_same(tmp_path, observation):
    about = {"analysis": "x", "title": "X", "key": "0" * 64, "params": {"k": 1}}
    result = stamped(build(observation), model=tiny_model("llama"), tokens=observation.tokens[0], **about)
    again = open_result(save(result, tmp_path / "sub" / "result.nc"))
    assert again.equals(result) and again.attrs == result.attrs
    assert all(again[name].attrs == result[name].attrs for name in result)
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["result.nc"]  # no half-written file beside it


def test_a_stamp_says_model_tokens_and_interventions_where_the_result_does_not():
    edits = [Ablate(Head(0, 1)), Ablate(Head(1, 2))]
    model = tiny_model("llama").edited(edits[:1])
    about = {"analysis": "x", "title": "X", "key": "0" * 64, "params": {"k": 1}, "source": "here"}
    bare = dataset(None, total=("", 1.5, "nats", None))
    record = json.loads(stamped(bare, model=model, tokens=None, **about).attrs["provenance"])
    assert record["model"]["weights_hash"] == model.identity.weights_hash and record["source"] == "here"
    assert record["token_ids"] is None and record["n_prompts"] == 0 and record["params"] == {"k": 1}
    assert record["interventions"] == ["Ablate(L0H1 by zero)"] and record["stamp"]["dtype"] == "float32"
    seen = observe(model, Prompt.ids([5, 9]), interventions=edits[1:])
    made = dataset(seen, total=("", 1.5, "nats", None))
    record = json.loads(stamped(made, model=model, tokens=seen.tokens[0], **about).attrs["provenance"])
    assert record["token_ids"] == [5, 9] and record["interventions"] == list(map(str, edits))


def test_the_conventions_are_held(observation):
    with pytest.raises(InputError, match="glossary"):
        dataset(observation, score=("layer nonsense", np.zeros((2, 2)), "share", (0, 1)))
    with pytest.raises(InputError, match=r"from 1\.5 to 1\.5"):
        dataset(observation, score=("layer", np.full(2, 1.5), "share", (0, 1)))
    bare = build(observation)
    del bare["score"].attrs["units"]
    with pytest.raises(InputError, match="score without units"):
        check(bare)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.array([1 + 2j, 0]), "complex128; expected numbers"),
        (np.array(["2026-01-01", "2026-01-02"], "datetime64[ns]"), "datetime64"),
        (np.array([1, 0], np.longdouble), "float128; expected numbers"),
        (np.array([None, "a"], dtype=object), "nan among texts"),
        (np.array(["a", 3], dtype=object), "3 among texts"),
    ],
)
def test_what_a_file_could_not_give_back_is_refused_when_it_is_made(tmp_path, values, said):
    """A file of complex numbers was written and could not be opened again; None came back as an empty text."""
    with pytest.raises(InputError, match=f"odd (of|with) {said}"):
        dataset(None, odd=("edge", values, "x", None))
    bare = dataset(None, score=("edge", np.ones(2), "x", None)).assign(odd=("edge", values))
    with pytest.raises(InputError, match=f"odd (of|with) {said}"):
        save(bare, tmp_path / "odd.nc")
    assert not list(tmp_path.iterdir())


def test_missing_values_are_allowed(observation):
    assert dataset(observation, score=("layer", np.array([np.nan, 0.5]), "share", (0, 1)))["score"].isnull().sum() == 1


def test_damaged_and_missing_files(tmp_path):
    with pytest.raises(InputError, match="no file"):
        open_result(tmp_path / "none.nc")
    (tmp_path / "bad.nc").write_bytes(b"not a result")
    with pytest.raises(InputError, match="damaged"):
        open_result(tmp_path / "bad.nc")


@pytest.mark.parametrize("dim", ["layer", "depth"])
def test_a_file_without_any_of_what_each_result_has_is_refused(tmp_path, dim):
    made = dataset(None, score=(f"{dim} rank", np.zeros((0, 2)), "share", (0, 1)))
    with pytest.raises(InputError, match=f"without any {dim}"):
        open_result(save(made, tmp_path / "none.nc"))


def test_no_place_to_write(tmp_path, observation):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UnavailableError, match="a place to write"):
        save(build(observation), tmp_path / "file" / "result.nc")


def test_keys_name_what_was_asked():
    base = dict(model="w", token_ids=[1, 2], analysis="a", code="c", params={"x": 1, "y": "z"})
    key = spec_key(**base)
    assert len(key) == 64 and key == spec_key(**{**base, "params": {"y": "z", "x": 1}})
    for change in (
        {"model": "v"},
        {"token_ids": [1, 3]},
        {"analysis": "b"},
        {"code": "d"},
        {"params": {"x": 2, "y": "z"}},
        {"interventions": ["Ablate(L1H2)"]},
        {"artifact_hash": "h"},
    ):
        assert spec_key(**{**base, **change}) != key, change
