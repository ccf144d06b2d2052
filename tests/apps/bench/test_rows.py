"""What is measured: every row runs, and computes what it says."""

import json
import subprocess

import pytest
import torch

from apps.bench.measure import measure
from apps.bench.passes import bare, bridge, everything, products
from apps.bench.processes import command, plain
from apps.bench.rows import (
    BARE,
    BRIDGE,
    CHECK,
    ROWS,
    Row,
)
from apps.bench.studies import (
    FULL_PASSES,
    ablations_from_layers,
    ablations_in_full,
    patches_from_layers,
    patches_in_full,
)
from apps.bench.subject import rows_of_text
from probes import CATALOG


def test_every_row_runs_and_batches_equal_single_prompts(subject):
    made = subject(2, 32)
    assert len({t.ids for t in made.tokens}) == 2 and made.ids.shape == (2, 32)
    rows = [row._replace(at=row.at and (2, 32)) for row in ROWS]
    records = measure(made, rows, (1, 1))
    assert [r["row"] for r in records] == [row.name for row in rows if row.fits(made)]
    assert all(r["wall_ms"] > 0 and len(r["wall_ms_runs"]) == 1 for r in records)
    assert torch.allclose(bare(made)(), bridge(made)(), atol=1e-5)  # the same weights, the same tokens
    together = everything(made)()
    prompted = [view.analysis for view in CATALOG.views if view.analysis.shares_pass]
    able = [analysis() for analysis in prompted if analysis().refusal(made.model) is None]
    names = [analysis.name for analysis in able if analysis.ready(made.model)]
    assert [json.loads(result.attrs["provenance"])["analysis"] for result in together] == names * 2
    second = dict(zip(names, together[len(names) :], strict=True))
    lens, routes = (
        CATALOG.view(name).analysis().run(made.model, made.tokens[1]) for name in ("logit-lens", "flow-routes")
    )
    assert abs(second["logit-lens"]["entropy"] - lens["entropy"]).max() < 1e-4
    assert second["flow-routes"].sizes == routes.sizes  # an edge list of its own length, whatever its neighbour's


def test_the_products_are_those_of_the_lens(subject, monkeypatch):
    made, multiplied = subject(1, 20), []
    plain = torch.nn.functional.linear
    multiply = products("logit-lens", positions="all", block=16)(made)
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w: multiplied.append(x.shape) or plain(x, w))
    multiply()
    sizes = made.model.sizes
    assert sum(shape[0] for shape in multiplied) == 20 * (sizes.n_layers + 1)
    assert {shape[1] for shape in multiplied} == {sizes.d_model} and max(shape[0] for shape in multiplied) == 16


def test_the_ablations_of_the_bench_are_those_of_the_study(subject):
    made = subject(2, 24)
    fast, slow = ablations_from_layers(made)(), ablations_in_full(made)()
    assert len(fast) == made.model.sizes.n_layers and len(slow) == min(FULL_PASSES, len(fast))
    for one, other in zip(fast, slow, strict=True):  # two layers: the slow route takes both
        assert one.tolist() == pytest.approx(other.tolist(), rel=1e-5)


def test_the_patches_of_the_bench_are_those_of_full_passes(subject):
    made = subject(1, 16)
    fast, slow = patches_from_layers(made)(), patches_in_full(made)()
    assert len(fast) == made.model.sizes.n_layers * made.model.sizes.n_heads and len(slow) == FULL_PASSES
    metrics = [float(logits[0][0, 0] - logits[0][0, 1]) for logits in slow]
    assert fast[:: len(fast) // FULL_PASSES][:FULL_PASSES].tolist() == pytest.approx(metrics, abs=1e-5)


def test_studies_of_short_prompts_stand_beside_a_bare_forward_only(subject):
    names = [row.name for row in ROWS if row.fits(subject(1, 32))]
    assert names == [BARE, BRIDGE, CHECK]


def test_the_text_is_natural_and_long_enough(default_model):
    tokens = rows_of_text(default_model, 16, 128)
    assert {len(t) for t in tokens} == {128} and all(t.bos for t in tokens)
    assert len({t.ids for t in tokens}) == 16
    assert len(rows_of_text(default_model, 1, 1024)[0]) == 1024


def test_whole_processes_run_and_their_time_counts(subject):
    """What a process spends is its starter's, too."""
    made = subject(1, 6)
    assert command("--help")(made)().startswith("usage: workbench")
    starting = Row("help", command("--help"), heavy=True)
    (record,) = measure(made, [starting], (1, 1))
    assert record["cpu_ms"] > 10  # Python alone takes as much; waiting for a process takes nothing
    with pytest.raises(subprocess.CalledProcessError):
        command("describe", "no-such-analysis")(made)()


@pytest.mark.slow
def test_plain_hugging_face_gives_the_first_answer(default_model_dir, subject):
    assert plain(subject(1, 6))().strip() == "Paris"
