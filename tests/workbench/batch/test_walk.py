"""Analyses over many prompts: every prompt once, whatever fails; and the studies of a corpus as parts of a batch."""

import numpy as np
import pytest

from probes import CATALOG
from tests.tiny_models import tiny_model
from tests.tiny_runs import BrokenAnalysis, Norms
from tests.workbench.batch.made import prompts
from workbench import batch
from workbench.analysis import run as runner
from workbench.analysis.run import Failure
from workbench.batch.walk import walked
from workbench.errors import Cancelled
from workbench.models.prompt import Prompt, tokenise


@pytest.fixture(scope="module")
def tokens(model):
    return [tokenise(model, Prompt.ids(ids)) for ids in prompts(12)]


def test_every_prompt_has_its_own_result_and_progress_ends_at_one(model, tokens):
    shares = []
    found = list(walked(model, tokens, [[Norms()]] * 12, batch_tokens=20, progress=shares.append))
    assert sorted(row for row, _ in found) == list(range(12))
    for row, outcome in found:
        alone = Norms().run(model, tokens[row])
        np.testing.assert_allclose(outcome.result["norm"], alone["norm"], atol=1e-5)  # as batches of other sizes
    assert shares == sorted(shares) and shares[-1] == 1


def test_one_that_fails_costs_itself_and_one_that_is_too_large_itself(model, tokens, monkeypatch):
    together = runner.together

    def small(model, rows, *more, **options):
        if any(len(row) > 8 for row in rows):
            raise MemoryError("no room for nine tokens")
        yield from together(model, rows, *more, **options)

    monkeypatch.setattr("workbench.batch.walk.together", small)
    halved, last = [], {}
    for row, outcome in walked(model, tokens, [[Norms(), BrokenAnalysis()]] * 12, batch_tokens=1000, halved=halved):
        last[row, outcome.analysis.name] = outcome.result
    assert len(last) == 24 and halved.count(1) == sum(len(one) > 8 for one in tokens) > 0
    for (row, name), result in last.items():
        fails = name == "broken-analysis" or len(tokens[row]) > 8
        assert isinstance(result, Failure) == fails
        assert not fails or ("out of memory" in result.sentence) == (len(tokens[row]) > 8)


def test_a_wish_to_stop_passes_through(model, tokens):
    def stop(share):
        raise Cancelled

    with pytest.raises(Cancelled):
        list(walked(model, tokens, [[Norms()]] * 12, batch_tokens=20, progress=stop))


STUDIES = {
    "flow-route-heads": {"n_texts": 3, "length": 6},
    "sink-rates": {"samples": 3, "length": 12},
    "head-table": {"n_sequences": 2, "texts": 3},
    "active-dormant": {"texts": 10, "length": 24, "ablate": "none"},
}


@pytest.mark.parametrize("name", [name for name in STUDIES if name != "active-dormant"])
def test_studies_of_a_corpus_in_a_batch_give_their_own_numbers(name, tmp_path):
    """Of active-dormant in the slow test: it needs texts."""
    model, analysis = tiny_model("llama"), {"name": name, "params": STUDIES[name]}
    spec = {"name": "studies", "models": [{"name": "tiny"}], "seed": 3, "analyses": [analysis]}
    found = batch.run(spec, tmp_path / "run", catalog=CATALOG, models={"tiny": model})
    rows, alone = found.rows(name), CATALOG.get(name)(**STUDIES[name], seed=3).run(model)
    assert found.failures == [] and len(rows.data_vars) > 1
    for variable, values in rows.data_vars.items():
        dims = [dim for dim in values.dims if dim != "prompt"]
        np.testing.assert_array_equal(values.isel(prompt=0), alone[variable].transpose(*dims).astype(np.float32))


@pytest.mark.slow
def test_active_dormant_heads_in_a_batch_are_those_of_the_study(default_model, tmp_path):
    params = STUDIES["active-dormant"]
    spec = {
        "name": "studies", "models": [{"name": "default"}], "analyses": [{"name": "active-dormant", "params": params}],
    }  # fmt: skip
    found = batch.run(spec, tmp_path / "run", catalog=CATALOG, models={"default": default_model})
    rows, alone = found.rows("active-dormant"), CATALOG.get("active-dormant")(**params).run(default_model)
    share = rows["dormant_share"].isel(prompt=0)
    np.testing.assert_array_equal(share, alone["dormant_share"].astype(np.float32))


def test_a_batch_of_a_model_over_two_devices_gives_the_numbers_of_the_whole_one(tmp_path):
    """The devices are pretended, as in `test_two_devices.py`: that tensors of two places never meet is seen."""
    from tests.tiny_models import tiny_hf
    from tests.two_devices import TwoDevices, split
    from workbench import wrap

    names = ("attention-sinks", "flow-routes")
    ids = [[4, 33, 80, 33, 12, 7, 50 + i, 51, 52, 3, 9, 10, 11, 33] for i in range(2)]
    spec = {"name": "split", "models": [{"name": "m"}], "prompts": [{"ids": ids}], "interventions": ["L1H2"]}
    spec["analyses"] = [{"name": name} for name in names]
    whole = batch.run(spec, tmp_path / "whole", catalog=CATALOG, models={"m": tiny_model("llama")})
    hf = tiny_hf("llama")
    split(hf, hf.model.layers, [hf.model.norm, hf.lm_head])
    with TwoDevices():
        found = batch.run(spec, tmp_path / "split", catalog=CATALOG, models={"m": wrap(hf, None, name="parted")})
    assert found.failures == [] and found.n_done == found.n_shards
    for name in names:
        rows, wanted = found.rows(name), whole.rows(name)
        for variable in wanted.data_vars:  # the same operations on the same CPU
            np.testing.assert_allclose(rows[variable], wanted[variable], atol=1e-6, rtol=1e-6, err_msg=variable)
