"""The bench: what it measures, on a tiny model; its arithmetic, on a clock that we set."""

import copy
import json

import pytest
import torch

from apps import bench
from apps.bench import ABLATIONS, BARE, BRIDGE, FULL_ABLATIONS, INDUCTION, LENS_ALL, PRODUCTS_ALL, Row, Subject
from workbench.models.loading import wrap
from workbench.processor import Processor


@pytest.fixture(scope="module")
def models():
    from tests.tiny_models import tiny_hf

    bare = tiny_hf("llama")
    bare.set_attn_implementation("sdpa")
    return wrap(copy.deepcopy(bare), None, name="tiny-llama"), bare


def subject(models, batch: int, length: int) -> Subject:
    model, bare = models
    return Subject(model, bare, bench.rows_of_text(model, batch, length))


class Clock:
    """Time that passes only when a row says so: wall in seconds, CPU twice as fast."""

    def __init__(self, monkeypatch):
        self.now, self.order = 0.0, []
        monkeypatch.setattr(bench.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(bench.time, "process_time", lambda: 2 * self.now)

    def row(self, name: str, seconds: float, **more) -> Row:
        def run():
            self.order.append(name)
            self.now += seconds

        return Row(name, lambda subject: run, **more)


def test_rows_run_in_turn_and_the_order_rotates(models, monkeypatch):
    clock = Clock(monkeypatch)
    rows = [clock.row("a", 1.0), clock.row("b", 2.0), clock.row("c", 4.0, heavy=True)]
    records = bench.measure(subject(models, 1, 8), rows, (3, 2))
    warm_up = ["a", "a", "b", "b", "c"]  # each once more for its peak; a heavy row only for that
    assert clock.order == [*warm_up, *"abc", *"bca", *"ab"]
    assert [r["wall_ms"] for r in records] == [1000.0, 2000.0, 4000.0]
    assert records[1]["cpu_ms"] == 4000.0 and len(records[2]["wall_ms_runs"]) == 2


def test_a_study_runs_once_at_its_own_size(models, monkeypatch):
    clock = Clock(monkeypatch)
    rows = [clock.row("light", 1.0), clock.row("study", 60.0, at=(2, 8)), clock.row("elsewhere", 60.0, at=(1, 8))]
    light, study = bench.measure(subject(models, 2, 8), rows, (2, 2))
    assert clock.order == ["light", "light", "light", "study", "light"]
    assert study["wall_ms_runs"] == [60000.0] and study["peak_mb"] is None
    assert bench.ratio([light, study], study, "light") == 60.0


def test_a_ratio_is_taken_within_rounds():
    def record(name, runs, length=8):
        return {"row": name, "batch": 1, "length": length, "wall_ms_runs": runs}

    # the machine was ten times slower in the last round: for both
    rows = [record("a", [1.0, 1.0, 10.0]), record("b", [2.0, 2.0, 20.0]), record("b", [9.0], length=16)]
    assert bench.ratio(rows, rows[1], "a") == 2.0
    assert bench.ratio(rows, rows[2], "a") is None


def test_peak_memory_is_what_a_call_adds():
    def allocates():
        return torch.ones(15_000_000).sum()

    nothing, sixty = bench.peak_megabytes(lambda: None), bench.peak_megabytes(allocates)
    if nothing is None:
        pytest.skip("this kernel does not tell the high-water mark")
    assert nothing < 10 and 55 < sixty < 90


def test_every_row_runs_and_batches_equal_single_prompts(models):
    made = subject(models, 2, 32)
    assert len({t.ids for t in made.tokens}) == 2 and made.ids.shape == (2, 32)
    rows = [row._replace(at=row.at and (2, 32)) for row in bench.ROWS]
    records = bench.measure(made, rows, (1, 1))
    assert [r["row"] for r in records] == [row.name for row in rows if row.fits(made)]
    assert all(r["wall_ms"] > 0 and len(r["wall_ms_runs"]) == 1 for r in records)
    assert torch.allclose(bench.bare(made)(), bench.bridge(made)(), atol=1e-5)  # the same weights, the same tokens
    together = bench.everything(made)()
    names = [e.name for e in bench.CATALOG if e.scope == "prompt" and e.ready(made.model)]
    assert [json.loads(result.attrs["provenance"])["analysis"] for result in together] == names * 2
    second = dict(zip(names, together[len(names) :], strict=True))
    lens, routes = (bench.CATALOG.get(name).run(made.model, made.tokens[1]) for name in ("logit-lens", "flow-routes"))
    assert abs(second["logit-lens"]["entropy"] - lens["entropy"]).max() < 1e-4
    assert second["flow-routes"].sizes == routes.sizes  # an edge list of its own length, whatever its neighbour's


def test_the_products_are_those_of_the_lens(models, monkeypatch):
    made, multiplied = subject(models, 1, 20), []
    plain = torch.nn.functional.linear
    multiply = bench.products("logit-lens", positions="all", block=16)(made)
    monkeypatch.setattr(torch.nn.functional, "linear", lambda x, w: multiplied.append(x.shape) or plain(x, w))
    multiply()
    sizes = made.model.sizes
    assert sum(shape[0] for shape in multiplied) == 20 * (sizes.n_layers + 1)
    assert {shape[1] for shape in multiplied} == {sizes.d_model} and max(shape[0] for shape in multiplied) == 16


def test_goals_are_held_against_what_was_measured():
    def record(name, wall, peak, length):
        return {
            "row": name,
            "batch": 1,
            "length": length,
            "peak_mb": peak,
            "wall_ms_runs": [wall],
            "cpu_ms_runs": [2 * wall],
        }

    rows = []
    for length, induction in ((64, 1.3), (1024, 1.1)):
        rows += [record(BRIDGE, 1.0, 100.0, length), record(INDUCTION, induction, 800.0, length)]
    rows += [record(LENS_ALL, 2.4, None, 64), record(PRODUCTS_ALL, 2.0, None, 64)]
    found = {(g["size"], "MB" in g["goal"], "lens" in g["goal"]): g for g in bench.goals(rows)}
    assert {key: g["met"] for key, g in found.items()} == {
        ("1 x 64", False, False): False, ("1 x 1024", False, False): True,
        ("1 x 1024", True, False): False, ("1 x 64", False, True): True,
    }  # fmt: skip
    assert found["1 x 1024", True, False]["measured"] == 700.0


def test_a_study_is_held_against_as_many_slow_runs_as_it_replaces():
    common = {"batch": 16, "length": 128, "peak_mb": None}
    slow = {"row": FULL_ABLATIONS, "wall_ms_runs": [3.0], "cpu_ms_runs": [6.0], **common}
    fast = {"row": ABLATIONS, "wall_ms_runs": [9.0], "cpu_ms_runs": [18.0], **common}
    (goal,) = bench.goals([slow, fast])
    assert goal["measured"] == goal["measured_cpu"] == 2.0 and goal["met"]  # 6 runs of 3 ms, in 9 ms
    assert goal["goal"].endswith("at least 1.4 times as fast") and "against 6 x ablation: 5 heads" in goal["goal"]
    slow["wall_ms_runs"] = [1.0]
    assert not bench.goals([slow, fast])[0]["met"]


def test_the_ablations_of_the_bench_are_those_of_the_study(models):
    made = subject(models, 2, 24)
    fast, slow = bench.ablations_from_layers(made)(), bench.ablations_in_full(made)()
    assert len(fast) == made.model.sizes.n_layers and len(slow) == min(bench.FULL_PASSES, len(fast))
    for one, other in zip(fast, slow, strict=True):  # two layers: the slow route takes both
        assert one.tolist() == pytest.approx(other.tolist(), rel=1e-5)


def test_the_patches_of_the_bench_are_those_of_full_passes(models):
    made = subject(models, 1, 16)
    fast, slow = bench.patches_from_layers(made)(), bench.patches_in_full(made)()
    assert len(fast) == made.model.sizes.n_layers * made.model.sizes.n_heads and len(slow) == bench.FULL_PASSES
    metrics = [float(logits[0][0, 0] - logits[0][0, 1]) for logits in slow]
    assert fast[:: len(fast) // bench.FULL_PASSES][: bench.FULL_PASSES].tolist() == pytest.approx(metrics, abs=1e-5)


def test_studies_of_short_prompts_stand_beside_a_bare_forward_only(models):
    names = [row.name for row in bench.ROWS if row.fits(subject(models, 1, 32))]
    assert names == [BARE, BRIDGE, bench.CHECK]


def test_the_table_is_printed_and_saved(models, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench, "_models", lambda: models)
    monkeypatch.setattr(bench, "QUICK_SIZES", ((1, 64), (2, 12)))
    monkeypatch.setattr(bench, "FEW_ROUNDS", (2, 1))
    monkeypatch.setattr(bench, "this_processor", lambda: Processor("AVX2", bfloat16=False, float16=False))
    out = tmp_path / "bench.json"
    bench.bench(out, quick=True)
    printed, saved = capsys.readouterr().out, json.loads(out.read_text(encoding="utf-8"))
    assert (
        saved["machine"]["threads"] == torch.get_num_threads() and "OMP_WAIT_POLICY" in saved["machine"]["environment"]
    )
    assert saved["machine"]["instructions"] == {
        "text": "AVX2 without bf16, fp16; unknown: AMX", "vectors": "AVX2", "bfloat16": False, "float16": False,
        "amx": None,
    }  # fmt: skip
    assert "(AVX2 without bf16, fp16; unknown: AMX)" in printed.splitlines()[0]
    assert {(r["batch"], r["length"]) for r in saved["rows"]} == {(1, 64), (2, 12)}
    assert next(r for r in saved["rows"] if r["row"] == BARE)["wall_ratio"] == 1.0
    assert [g["size"] for g in saved["goals"]] == ["1 x 64", "1 x 64"]
    assert printed.count("everything together") == 2 and printed.count("  met") + printed.count("  missed") == 2
    assert str(out) in printed


def test_the_text_is_natural_and_long_enough(default_model):
    tokens = bench.rows_of_text(default_model, 16, 128)
    assert {len(t) for t in tokens} == {128} and all(t.bos for t in tokens)
    assert len({t.ids for t in tokens}) == 16
    assert len(bench.rows_of_text(default_model, 1, 1024)[0]) == 1024
