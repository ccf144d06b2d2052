"""The timeline: losses and scores are those of the checkpoints, watching changes nothing, folders are laid on it."""

import json
import shutil

import numpy as np
import pytest
import torch

from probes import CATALOG, FlowRoutes, InductionHeads, TaskAttention, TrainingTimeline
from probes.formation import watched
from probes.formation.real_checkpoints import Place, places
from probes.formation.series import observed
from probes.routes.extraction import extract
from tests.tiny_models import spelling, tiny_hf
from workbench import load
from workbench.errors import Cancelled, InputError
from workbench.intervene import Ablate, Head
from workbench.loading.toys.checkpoints import Kept
from workbench.loading.toys.recipes import asked
from workbench.models.prompt import Prompt

TOY = "toy:induction,length=32,d_model=16,n_heads=2,steps=10,every=5"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_every_number_is_that_of_the_checkpoint_and_weights_do_not_know_who_looks(cache, monkeypatch):
    free = load(TOY, seed=1).identity.weights_hash
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache / "watched"))
    result = TrainingTimeline(seeds=2, entries="task-attention induction-heads").run(load(TOY, step=0))
    assert load(TOY, seed=1).identity.weights_hash == free
    recipe, _ = asked(TOY + ",seed=1")
    assert result["step"].values.tolist() == list(recipe.grid)
    for step in (0, 5, 10):
        model = load(TOY, step=step, seed=1)
        alone = TaskAttention().run(model)
        at = result.sel(seed=1, step=step)
        for name in alone.data_vars:
            np.testing.assert_array_equal(at[name].values, alone[name].values)
        np.testing.assert_array_equal(at["induction_score"], InductionHeads().run(model)["induction_score"])
        assert float(at["loss"]) == Kept(recipe).steps()[step]["loss"]
    assert "induction_score_low" not in result and "loss_first_copy" in result
    rows = result["pattern"].sum("key")
    assert np.allclose(rows, 1, atol=1e-5)


def test_interventions_are_of_every_checkpoint_and_its_losses():
    model = load(TOY)
    free = TrainingTimeline(seeds=1).run(model)
    edited = TrainingTimeline(seeds=1).run(model, interventions=[Ablate(Head(1, 0))])
    assert (edited["loss"] != free["loss"]).all() and (edited["to_previous_token"] == free["to_previous_token"])[
        ..., 0, :
    ].all()


def test_a_clamp_is_another_run_that_says_so():
    model = load(TOY)
    clamped = TrainingTimeline(seeds=1, clamp="L0H0 previous-token").run(model)
    assert clamped.attrs["clamp"] == "L0H0 previous-token" and "previous-token" in json.dumps(clamped.attrs)
    assert not clamped["loss"].equals(TrainingTimeline(seeds=1).run(model)["loss"])


def test_a_cancelled_timeline_is_taken_up_where_it_was():
    told = []

    def stop(share):
        told.append(share)
        if len(told) == 4:
            raise Cancelled

    with pytest.raises(Cancelled):
        TrainingTimeline(seeds=1).run(load(TOY, step=0), progress=stop)
    assert 3 < len(Kept(asked(TOY).recipe).steps()) < len(asked(TOY).recipe.grid)
    assert len(TrainingTimeline(seeds=1).run(load(TOY, step=0))["step"]) == len(asked(TOY).recipe.grid)


def test_partial_results_come_along_the_way():
    parts = []
    TrainingTimeline(seeds=2).run(load(TOY, step=0), partial=parts.append)
    sizes = [int(part["loss"].notnull().sum()) for part in parts]
    assert len(set(sizes)) > 5 and sizes == sorted(sizes)
    assert parts[0].sizes["seed"] == 1 and ", 1 seed." in parts[0].attrs["summary"]  # the second has not begun
    assert ", 2 seeds." in parts[-1].attrs["summary"]


def test_any_analyses_go_along_any_series_of_models():
    series = [(step, load(TOY, step=step)) for step in (10, 0, 5)]
    found = observed(series, [CATALOG.get("logit-lens")()], [0, 5, 6, 5])
    assert found["logit-lens"]["step"].values.tolist() == [0, 5, 10]
    with pytest.raises(InputError, match="is no toy"):
        observed([(0, load("toy-induction"))], [TaskAttention()])


def folder(path, seed=0, **sizes):
    """A tiny real checkpoint: another seed stands for another step."""
    hf = tiny_hf("llama", seed=seed, **sizes)
    hf.save_pretrained(path)
    spelling().save_pretrained(path)
    return path


def test_a_series_of_folders_is_laid_on_the_timeline_by_number(cache):
    for step in (1000, 30):  # by name 1000 would come first
        folder(cache / f"run-{step}", seed=step)
    text = "; ".join(str(cache / f"run-{step}") for step in (1000, 30))
    timeline = TrainingTimeline(checkpoints=text, entries="induction-heads attention-sinks")
    result = timeline.run(load("toy-induction"))
    assert result["step"].values.tolist() == [30, 1000]
    assert result.attrs["summary"] == (  # two points have no change point, whatever they do: "Nothing changes at once"
        "A series, 2 checkpoints from step 30 to 1000, 1 seed. So few cannot tell what changes at once: 8 and more can."
    )
    for step in (30, 1000):
        alone = InductionHeads().run(load(str(cache / f"run-{step}")))
        np.testing.assert_allclose(result["induction_score"].sel(step=step)[0], alone["induction_score"], atol=1e-6)
    again = timeline.run(load("toy-induction"))
    np.testing.assert_array_equal(again["induction_score"], result["induction_score"])
    edited = timeline.run(load("toy-induction"), interventions=[Ablate(Head(0, 1))])
    assert not edited["induction_score"].equals(result["induction_score"])


def test_an_analysis_of_which_nothing_can_be_followed_is_named(cache):
    series = ";".join(str(folder(cache / f"c{step}", seed=step)) for step in (1, 2))
    asked = lambda entries: TrainingTimeline(checkpoints=series, entries=entries).run(load("toy-induction"))
    both, alone = asked("induction-heads sink-rates"), asked("induction-heads")
    said = "Of sink-rates nothing is followed: its results hold no number of a model, a layer or a head alone."
    assert both.attrs["summary"] == f"{alone.attrs['summary']} {said}"
    assert set(both.data_vars) == set(alone.data_vars)


def test_a_checkpoint_that_is_written_anew_is_another_series(cache):
    timeline = TrainingTimeline(checkpoints=";".join(str(folder(cache / f"c{step}", seed=step)) for step in (1, 2)))
    model, toy = load("toy-induction"), TrainingTimeline()
    before, same = timeline.spec_key(model, None), timeline.spec_key(model, None)
    folder(cache / "c2", seed=9)
    assert before == same != timeline.spec_key(model, None)
    assert toy.artifact(model) == "" and TrainingTimeline(checkpoints="nowhere").artifact(model) == ""


def test_a_series_that_is_done_is_not_computed_again(cache, monkeypatch):
    for step in (1, 2):
        folder(cache / f"c{step}", seed=step)
    timeline = TrainingTimeline(checkpoints=f"{cache / 'c1'};{cache / 'c2'}")
    first = timeline.run(load("toy-induction"))
    monkeypatch.setattr(InductionHeads, "analyse", lambda *_: pytest.fail("computed again"))
    np.testing.assert_array_equal(timeline.run(load("toy-induction"))["induction_score"], first["induction_score"])


def test_what_fails_on_a_checkpoint_is_said_and_tried_again(cache, monkeypatch):
    """The sentence held a Python dictionary; and what lacked memory once was refused for good."""
    for step in (1, 2):
        folder(cache / f"c{step}", seed=step)
    series = {"checkpoints": f"{cache / 'c1'};{cache / 'c2'}"}
    with pytest.raises(InputError, match=r"^Got head-survey on the checkpoint step 1, which failed \(Got [^{]*\); exp"):
        TrainingTimeline(entries="head-survey", **series).run(load("toy-induction"))
    with monkeypatch.context() as short:
        short.setattr(InductionHeads, "analyse", lambda *_: (_ for _ in ()).throw(MemoryError))
        with pytest.raises(InputError, match="induction-heads on the checkpoint step 1, which failed"):
            TrainingTimeline(**series).run(load("toy-induction"))
    assert TrainingTimeline(**series).run(load("toy-induction"))["induction_score"].notnull().all()


def test_unlike_checkpoints_are_named_with_what_differs(cache):
    folder(cache / "c1")
    folder(cache / "c2", n_layers=3)
    with pytest.raises(InputError, match=r"step 1 and step 2, whose sizes differ \(n_layers 2; n_layers 3\)"):
        TrainingTimeline(checkpoints=f"{cache / 'c1'};{cache / 'c2'}").run(load("toy-induction"))
    shutil.copytree(cache / "c1", cache / "c3")
    file = cache / "c3" / "tokenizer.json"
    file.write_text(file.read_text().replace('"a": 66', '"é": 66'))
    with pytest.raises(InputError, match="step 1 and step 3, whose tokenizers differ"):
        TrainingTimeline(checkpoints=f"{cache / 'c1'};{cache / 'c3'}").run(load("toy-induction"))


def test_places_are_ordered_by_number_and_nothing_is_invented():
    found = places("runs/step-2000; runs/step-150;7=runs/first; EleutherAI/pythia-70m@step512; a/m-1000.gguf")
    assert [place.step for place in found] == [7, 150, 512, 1000, 2000]
    assert found[2] == Place(512, "EleutherAI/pythia-70m", "step512") and found[0].name == "runs/first"
    for bad, said in (("a; b", "a number"), ("x-1", "two or more"), ("x-1;y-1", "both of step 1"), ("", "two or more")):
        with pytest.raises(InputError, match=said):
            places(bad)


def test_what_has_no_run_is_refused():
    with pytest.raises(InputError, match="without checkpoints"):
        TrainingTimeline().run(load("toy-induction"))
    with pytest.raises(InputError, match="logit-lens"):
        TrainingTimeline(entries="logit-lense").run(load(TOY, step=0))
    with pytest.raises(InputError, match="is no toy that was trained"):
        TaskAttention().run(load("toy-induction"))


def test_the_hand_made_circuit_is_read_as_it_was_made():
    """Where an ideal model looks: its patterns are set, so the scores are 1."""
    from workbench.loading.pretrained import wrap
    from workbench.loading.toys.circuits import induction_circuit

    toy = wrap(induction_circuit(), None, name="toy:induction")
    result = TaskAttention().run(toy)
    assert float(result["to_previous_token"].sel(layer=0, head=0)) == pytest.approx(1, abs=1e-3)
    assert float(result["to_induction"].sel(layer=1, head=0)) == pytest.approx(1, abs=1e-3)
    recipe = asked("toy:induction").recipe
    batch = recipe.task.evaluation(16)
    with torch.no_grad():
        measures = recipe.task.measures(toy.adapter.forward(batch.tokens), batch)
    assert measures["repeat_accuracy"] == 1.0 and measures["repeat_loss"] < 0.01  # the oracle's is 0


def test_figures_have_bands_of_change_points_and_a_frame_a_step():
    view = CATALOG.view("training-timeline")
    result = TrainingTimeline(seeds=2).run(load(TOY, step=0))
    result["change_low"][:], result["change_high"][:] = 3.0, 6.0
    scores = view.drawn(view.figures[0], result)
    assert len(scores.layout.shapes) >= 2 and scores.layout.xaxis.type == "log"
    linear = view.drawn(view.figures[0], result, display=view.shown({"log_steps": False}))
    assert linear.layout.xaxis.type != "log"
    panels = view.drawn(view.figures[1], result)  # the figure's title above those of its panels
    assert panels.layout.annotations and panels.layout.margin.t >= panels.layout.title.pad.b + 17 > 40
    scrub = view.drawn(view.details[1], result, {"layer": 1, "head": 0})
    steps = [int(step.label) for step in scrub.layout.sliders[0].steps]
    assert steps == [int(frame.name) for frame in scrub.frames] == result["step"].values.tolist()
    z = np.array(scrub.frames[3].data[0].z, dtype=float)
    np.testing.assert_allclose(z, result["pattern"].isel(step=3).sel(layer=1, head=0), atol=1e-3)
    assert view.drawn(view.details[1], result, {"layer": 9, "head": 0}) is None


SHORT = [
    "toy:induction,length=32,d_model=16,n_heads=2,steps=3,every=0,lr=0.05",
    "toy:bigram-backcopy,d_model=16,d_mlp=16,length=20,steps=3,every=0,lr=0.05",
]


@pytest.mark.parametrize("toy", SHORT)
def test_routes_at_every_step_are_those_of_the_checkpoint(toy):
    """The graph behind the last token of a sequence in which what the task is about occurs."""
    result = TrainingTimeline(seeds=1).run(load(toy, step=0))
    recipe = asked(toy).recipe
    step = recipe.steps
    rows, model = recipe.task.evaluation(64).tokens.tolist(), load(toy)
    strings = [model.vocabulary.string(i) for i in range(recipe.task.d_vocab)]
    ids = [strings.index(text) for text in result["token_text"].values]
    assert any(row[: len(ids)] == ids for row in rows)
    graph = extract(FlowRoutes().run(model, Prompt.ids(ids)))
    route = result["route"].sel(step=step).values
    on = graph["kind"].values == "attention"
    places = tuple(graph[f"edge_{name}"].values[on] for name in ("layer", "head", "query", "key"))
    np.testing.assert_allclose(route[places], graph["weight"].values[on], atol=1e-6)
    assert on.any() and np.count_nonzero(route) == on.sum()
    for kind in ("mlp", "resid_attn", "resid_mlp"):
        own = graph["kind"].values == kind
        total = float(result[f"route_{kind}"].sel(step=step).sum())
        assert total == pytest.approx(float(graph["weight"].values[own].sum()), abs=1e-5)
    view = CATALOG.view("training-timeline")
    figure = view.drawn(view.figures[4], result)
    assert [int(frame.name) for frame in figure.frames] == result["step"].values.tolist()
    kinds = lambda shapes: [(shape.name, shape.line.color, shape.line.width, shape.opacity) for shape in shapes]
    for frame in figure.frames:  # laid over the last one by place: what a step lacks must be there, and not be seen
        assert len(frame.data) == len(figure.data) and kinds(frame.layout.shapes) == kinds(figure.layout.shapes)
        assert all(trace.hovertemplate == own.hovertemplate for trace, own in zip(frame.data, figure.data, strict=True))
    assert len({str(frame.layout.shapes) for frame in figure.frames}) > 1


def test_the_sequence_that_is_watched_repeats_early_enough_to_be_seen():
    """Of the default toy, whose probe sequences repeat only behind their first 24 tokens."""
    ids, targets = watched._sequence(asked("toy:induction").recipe)
    repeats = [i for i, token in enumerate(ids[:-1]) if token in ids[:i]]
    assert len(repeats) > 10 and all(ids[ids.index(ids[i]) + 1] == ids[i + 1] == targets[i] for i in repeats)


@pytest.mark.slow
def test_an_intermediate_fine_tune_of_the_default_model_is_laid_on_the_timeline(default_model_dir, tmp_path):
    """The default model, and the same behind two updates on a text of ours: L18H6 is an induction head in both, and
    the second's numbers are others."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    hf = AutoModelForCausalLM.from_pretrained(default_model_dir, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(default_model_dir)
    ids = tokenizer("A toy that repeats itself learns to look back, and a toy that repeats itself", return_tensors="pt")
    optimiser = torch.optim.SGD(hf.parameters(), lr=0.01)
    for _ in range(2):
        hf(**ids, labels=ids["input_ids"]).loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    hf.save_pretrained(tmp_path / "tuned-2")
    tokenizer.save_pretrained(tmp_path / "tuned-2")
    del hf, optimiser
    series = f"0={default_model_dir};{tmp_path / 'tuned-2'}"
    result = TrainingTimeline(checkpoints=series).run(load("toy-induction"))
    head = result["induction_score"].sel(layer=18, head=6)[0]
    assert result["step"].values.tolist() == [0, 2] and (head > 0.2).all() and float(head[0]) != float(head[1])
    assert "2 checkpoints" in result.attrs["summary"]
