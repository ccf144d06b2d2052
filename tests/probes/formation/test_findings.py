"""Findings: what is measured of a model is what it says, and what forms, forms. Margins are those of runs on other
seeds (0 to 2); the seeds here are fresh. What takes longer is slow."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
import xarray as xr

from probes import AbruptLearning, BackcopyFormation, ClampedFormation, InductionFormation, TaskAttention
from probes.formation.change_points import change_point
from probes.formation.findings.backcopy_heads import SilentAt, backcopy_measures
from probes.formation.findings.conditions import first_below, runs, table
from probes.formation.toy_runs import checkpoint, kept_steps
from workbench import load
from workbench.errors import InputError
from workbench.intervene import Ablate, Head, hooks
from workbench.loading.pretrained import wrap
from workbench.loading.toys.checkpoints import Kept
from workbench.loading.toys.recipes import RECIPES, asked
from workbench.loading.toys.tasks.induction import Induction
from workbench.loading.toys.tasks.task import Batch, followers
from workbench.loading.toys.training import Training, alone_on_a_core, evaluated

BB = "toy:bigram-backcopy,d_model=16,n_heads=2,n_layers=2,d_mlp=16,length=24,characters=20"


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def plain(model, batch):
    """Every activation of a toy by plain hooks of PyTorch: what the measures are held against."""
    seen, handles = {}, []
    for layer, block in enumerate(model.adapter.module.blocks):
        for name in ("pattern", "scores", "v", "z", "resid_post"):
            keep = lambda module, inputs, out, key=(layer, name): seen.__setitem__(key, out.detach())
            handles.append(block.points[name].register_forward_hook(keep))
    with torch.no_grad():
        model.adapter.module(batch.tokens)
    for handle in handles:
        handle.remove()
    return seen


def test_backcopy_measures_are_what_they_say():
    """By loops over rows and queries, on random weights; float32 sums of a few thousand numbers."""
    recipe, _ = asked(BB + ",steps=4,every=0")
    Kept(recipe).ensure()
    model = checkpoint(recipe, 4)
    found = backcopy_measures(recipe, model)
    task, batch = recipe.task, recipe.task.evaluation(128)
    seen = plain(model, batch)
    layer = int(found["sink_layer"])
    where = {False: [], True: []}
    for row in range(128):
        for query in range(8, 24):
            where[bool(task.is_trigger(batch.tokens[row, query]))].append((row, query))
    sinks = {
        (at, head): np.mean([float(seen[at, "pattern"][row, head, query, 0]) for row, query in where[False]])
        for at in range(2) for head in range(2)
    }  # fmt: skip
    head = max(sinks, key=sinks.get)
    assert head[0] == layer and found["sink"] == pytest.approx(sinks[head], rel=1e-4)
    pattern, scores = (seen[layer, name][:, head[1]] for name in ("pattern", "scores"))
    assert found["sink_at_triggers"] == pytest.approx(
        np.mean([float(pattern[r, q, 0]) for r, q in where[True]]), rel=1e-4
    )
    previous = np.mean([float(pattern[r, q, q - 1]) for r, q in where[True]])
    assert found["previous_at_triggers"] == pytest.approx(previous, rel=1e-4)
    logit = np.mean([float(scores[r, q, 0] - scores[r, q, 1 : q + 1].mean()) for r, q in where[False]])
    assert found["sink_logit"] == pytest.approx(logit, rel=1e-3, abs=1e-5)
    W_O = model.weights(layer).W_O[head[1]]
    value, written = ((seen[layer, name][:, :, head[1]] @ W_O).norm(dim=-1) for name in ("v", "z"))
    others = np.mean([float(value[r, q]) for r, q in where[False]])
    assert found["value_drain"] == pytest.approx(float(value[:, 0].mean()) / others, rel=1e-4)
    triggers = np.mean([float(value[r, q]) for r, q in where[True]])
    assert found["trigger_drain"] == pytest.approx(triggers / others, rel=1e-4)
    weights, triggers = pattern.numpy(), task.is_trigger(batch.tokens).numpy()
    rest = [sum(weights[r, q, k] for k in range(24) if k == 0 or triggers[r, k]) for r, q in where[False]]
    assert found["rest"] == pytest.approx(np.mean(rest), rel=1e-4)
    ratio = np.mean([float(written[r, q]) for r, q in where[False]]) / np.mean(
        [float(written[r, q]) for r, q in where[True]]
    )
    assert found["output_ratio"] == pytest.approx(ratio, rel=1e-4)


def test_silence_at_places_is_there_alone():
    recipe, _ = asked(BB + ",steps=4,every=0")
    Kept(recipe).ensure()
    model, batch = checkpoint(recipe, 4), recipe.task.evaluation(4)
    places = torch.zeros(4, 24, dtype=torch.bool)
    places[1, 20] = True
    with torch.no_grad():
        free = model.adapter.forward(batch.tokens)
        with hooks(model, [SilentAt(1, places)]):  # the last layer: nothing behind it reads what it writes
            silent = model.adapter.forward(batch.tokens)
    changed = (free != silent).any(-1)
    assert changed[1, 20] and changed.sum() == 1


def test_a_table_has_holes_where_nothing_was_run_yet():
    recipe, _ = asked("toy:exemplars,classes=8,d_model=16,steps=3,every=0")
    parts = list(runs({"a": recipe, "b": recipe.with_settings({"n_heads": 2})}, [0, 1], lambda *_: {"x": 1.0}))
    result = table(parts[-1], ["a", "b"], [0, 1], {"x": ("nats", (0, None), "x")})
    assert result["x"].notnull().all() and result["loss"].sizes["step"] == 4
    assert first_below({0: {"loss": 3.0}, 10: {"loss": 0.5}, 20: {"loss": 0.7}}, "loss", 1.0) == 10
    assert np.isnan(first_below({0: {"loss": 3.0}}, "loss", 1.0))


@pytest.mark.parametrize(
    ("entry", "toy", "params", "name"),
    [
        (InductionFormation, "toy:induction,n_heads=4", {"conditions": "heads4"}, "repeat_loss"),
        (ClampedFormation, "toy:exemplars", {"clamps": "free"}, "final_loss"),
        (AbruptLearning, "toy:gaussian-classes", {"classes": "16", "burstiness": "2"}, "context_mass"),
    ],
)
def test_interventions_are_of_every_step_that_is_measured(entry, toy, params, name):
    """Curves and numbers at the end were those of the models as they were trained."""
    study = entry(**params, seeds=1, steps=4)
    free = study.run(load(f"{toy},step=0"))
    edited = study.run(load(f"{toy},step=0"), interventions=[Ablate(Head(1, 0))])
    (recipe,) = study.recipes(asked(toy).recipe).values()
    for step in recipe.grid:
        module = Kept(recipe).module(step)
        module.blocks[1].W_O.data[0] = 0
        by_hand = evaluated(wrap(module, None, name="by hand"), recipe)
        assert float(edited["loss"].sel(step=step).item()) == pytest.approx(by_hand.loss, abs=1e-6)
    measures = by_hand.measures | {"final_loss": by_hand.loss, "repeat_loss": by_hand.measures.get("repeat_loss_probe")}
    assert float(edited[name].item()) == pytest.approx(measures[name], abs=1e-6)
    assert float(free[name].item()) != float(edited[name].item())


@pytest.mark.parametrize(
    ("entry", "toy", "params", "said"),
    [
        (BackcopyFormation, "toy:bigram-backcopy", {"conditions": "sigmoid"}, "softmax, relu"),
        (InductionFormation, "toy:induction", {"conditions": "heads9"}, "heads1"),
        (ClampedFormation, "toy:exemplars", {"clamps": "layer-9"}, "previous-token"),
        (ClampedFormation, "toy:induction", {"classes": "200"}, "toy:exemplars"),
        (BackcopyFormation, "toy:induction", {}, "is no toy:bigram-backcopy"),
    ],
)
def test_what_is_not_there_is_refused(entry, toy, params, said):
    with pytest.raises(InputError, match=said):
        entry(**params).run(load(f"{toy},step=0"))


def test_induction_forms_at_once_and_not_in_one_layer():
    """Seed 7. Margins of seeds 0 to 2: change at 230 to 251, accuracy 1.0, previous token .63 to .73, induction 1.0."""
    toy = "toy:induction,steps=400,seed=7"
    along = kept_steps(asked(toy).recipe)
    losses = np.array([found.measures["repeat_loss"] for found in along.values()])
    change = change_point(np.array(list(along), float), losses)
    assert change is not None and 150 < change.step < 350 and change.last - change.first < 130
    assert along[400].measures["repeat_accuracy_probe"] > 0.95
    looks = TaskAttention().run(load(toy))
    assert float(looks["to_previous_token"].sel(layer=0, head=0)) > 0.4
    assert float(looks["to_induction"].sel(layer=1, head=0)) > 0.75
    control = kept_steps(asked(f"{toy},n_layers=1").recipe)
    assert control[400].measures["repeat_accuracy_probe"] < 0.2
    losses = np.array([found.measures["repeat_loss"] for found in control.values()])
    assert change_point(np.array(list(control), float), losses) is None


def test_a_clamped_circuit_is_learnt_earlier():
    """Seeds 5 and 6: with the match given at most three quarters of the free run's steps; measured: a seventh. A free
    run that is not there by the end (seed 5) counts as having taken all its steps."""
    for seed in (5, 6):
        steps = {}
        for clamp in ("", "L1H0 match"):
            recipe = asked(f"toy:exemplars,steps=500,seed={seed},clamp={clamp}").recipe
            along = {step: {"loss": found.loss} for step, found in kept_steps(recipe).items()}
            steps[clamp] = first_below(along, "loss", 0.4 * np.log(2))
        assert steps["L1H0 match"] < 0.75 * np.nan_to_num(steps[""], nan=500)


@pytest.mark.slow
def test_backcopy_makes_a_sink_that_is_drained_and_relu_does_not():
    """Seeds 0 to 4 of 1000 steps. Of seeds 0 to 2: sink .60 to .95, drain .15 to .20 (ReLU .37 to .74), previous token
    .92 to .98, loss behind triggers up to .036, and 5.9 to 7.1 with attention silent there. What the sink leaves goes
    to triggers, which are as little copied as BOS: in seed 4 it is .47, and .95 with them. Not all of it in seed 3:
    .155 goes to one common character, whose value is as large as others' (BOS .73, .77 with triggers), and so it writes
    .36 as much as at triggers, .16 to .23 elsewhere."""
    toy = load("toy:bigram-backcopy", step=0)
    result = BackcopyFormation(seeds=5).run(toy)
    soft, relu = (result.sel(condition=name) for name in ("softmax", "relu"))
    rests = soft["rest"] > 0.85
    assert rests.sum() >= 4 and (soft["rest"] > 0.7).all()
    assert soft["sink"].mean() > 0.6 and (soft["sink_at_triggers"] < 0.05).all()
    assert (soft["trigger_drain"] < 0.75).all()
    assert (soft["previous_at_triggers"] > 0.8).all() and (soft["value_drain"] < 0.35).all()
    assert (soft["output_ratio"] < xr.where(rests, 0.35, 0.5)).all() and (soft["sink_logit"] > 5).all()
    assert (soft["backcopy_loss"] < 0.15).all() and (soft["bigram_kl"] < 0.08).all()
    assert (soft["backcopy_silent_at_triggers"] > 3).all()
    assert (abs(soft["kl_silent_elsewhere"] - soft["bigram_kl"]) < 0.02).all()
    assert (relu["sink"] < 0.05).all() and (relu["value_drain"] > 0.3).all() and (relu["backcopy_loss"] < 0.15).all()


@dataclass(frozen=True)
class Bursts(Induction):
    """Pairs of tokens side by side; each but the first is, with probability 0.6, one of those before it. Nothing longer
    repeats. Probes are those of the task that does."""

    def draw(self, random, n, split="train"):
        if split == "probe":
            return super().draw(random, n, split)
        slots = self.length // 2 + 1
        pairs = random.integers(1, self.tokens + 1, (n, slots, 2))
        again = random.random((n, slots)) < 0.6
        again[:, 0] = False
        for slot in range(1, slots):
            before = pairs[np.arange(n), random.integers(0, slot, n)]
            pairs[:, slot] = np.where(again[:, slot, None], before, pairs[:, slot])
        flat = np.concatenate([np.zeros((n, 1), np.int64), pairs.reshape(n, -1)], 1)[:, : self.length + 1]
        repeat = np.zeros((n, self.length), bool)
        repeat[:, 1::2] = again[:, : self.length // 2]
        tokens = torch.from_numpy(flat)
        return Batch(tokens[:, :-1], tokens[:, 1:], {"repeat": torch.from_numpy(repeat)})

    def is_repeat(self, batch):
        return batch.fields["repeat"] if "repeat" in batch.fields else super().is_repeat(batch)


@pytest.mark.slow
def test_bursts_of_pairs_give_an_induction_head_only_where_positions_are_relative():
    """A negative control: pairs repeat, longer segments never do. Learned positions solve it without an induction head:
    of seeds 0 and 1 accuracy .94 to .97 on pairs and .05 to .06 on segments, attention to what followed .05 to .09.
    With rotations (seeds 0 to 2) .96, .96 to .99 and .56 to .66: there one forms, for pairs are enough."""
    for positions, forms in (("learned", False), ("rotary", True)):
        for seed in (5, 6):
            recipe = replace(RECIPES["induction"].with_settings({"positions": positions}), task=Bursts(), seed=seed)
            run = Training(recipe)
            with alone_on_a_core():
                for _ in range(500):
                    run.advance()
            run.module.eval()
            measures, batch = evaluated(run.model, recipe).measures, recipe.task.evaluation(64, "probe")
            pattern, after = plain(run.model, batch)[1, "pattern"][:, 0], followers(batch.tokens, 1)
            induction = float((pattern * after).sum(-1)[after.any(-1)].mean())
            assert measures["repeat_accuracy"] > 0.85
            assert (measures["repeat_accuracy_probe"] > 0.8) == (induction > 0.35) == forms
            assert forms or (measures["repeat_accuracy_probe"] < 0.2 and induction < 0.2)


@pytest.mark.slow
def test_clamps_move_the_phase_change_of_both_tasks():
    for toy in ("toy:exemplars", "toy:induction"):
        result = ClampedFormation(seeds=4, clamps="free previous-token match").run(load(toy, step=0))
        free, previous, match = (
            result["learned_step"].sel(condition=name) for name in ("free", "previous-token", "match")
        )
        free = free.fillna(asked(toy).recipe.steps)  # not there by the end
        assert (previous < 0.75 * free).all() and (match < previous).all()


def test_one_seed_is_one():
    toy = load("toy:induction,tokens=95,d_model=16,n_heads=2,steps=4,every=2")
    formed = InductionFormation(seeds=1, conditions="heads1", steps=2).run(toy)
    assert formed.attrs["summary"].startswith("Heads1: a change at once in none of 1 seed, accuracy ")
    assert "free never (0 of 1 seed)." in ClampedFormation(seeds=1, clamps="free", steps=2).run(toy).attrs["summary"]
