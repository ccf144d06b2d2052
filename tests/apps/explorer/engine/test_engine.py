"""The engine on a small model: one pass for all, slices from the kept state, refusals in sentences."""

import gc
import json
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated

import numpy as np
import pytest
import torch
import xarray as xr

from apps.explorer.callbacks.continuation import came
from apps.explorer.callbacks.figure import large_view
from apps.explorer.callbacks.params import changed_params
from apps.explorer.callbacks.poll import changed_request, loaded_store
from apps.explorer.callbacks.run import ask, prompt_line
from apps.explorer.callbacks.view import start_view
from apps.explorer.engine import hosted as hosting
from apps.explorer.engine.engine import Engine
from apps.explorer.engine.jobs import SELECTION, Job
from apps.explorer.engine.settings import Settings
from apps.explorer.engine.states import slice_of
from apps.explorer.page.form_state import TypedParam
from apps.explorer.page.news import look, request_of
from apps.explorer.page.state import Asked, Continuing, Seen, Shown, Sizes
from apps.explorer.page.views import drawn
from probes.attention.pattern import Attention
from probes.erasure import readout_probes
from probes.erasure.readout_probes import TokenErasureProbes
from probes.erasure.trained.artifact import default_path, find
from probes.erasure.trained.trainer import train
from probes.lens.logit_lens import VIEW as LENS
from probes.lens.logit_lens import LogitLens
from tests.tiny_analyses import tiny_study, tiny_view
from tests.tiny_models import tiny_hf, tiny_model
from tests.tiny_probes import sentences, speller
from workbench import wrap
from workbench.analysis.kinds import OnModel, OnPrompt, Stimulus, Study
from workbench.analysis.pace import Pace
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.results import dataset
from workbench.analysis.run import Failure
from workbench.errors import InputError, RefusedError, UnavailableError
from workbench.intervene import Ablate, Head, hooks
from workbench.intervene.text import MEAN_HOOKS, phrase
from workbench.models.hooks import PATTERN, RESID_PRE, Z
from workbench.models.prompt import Prompt
from workbench.observation import Need, keep, observe
from workbench.observation.recording import measure_means

TEXT = "5 9 5 7 9"


def mean_of_z(z, site, scale):
    """Mean of every head's output, `[batch, head]`."""
    return scale * z.float().mean((1, 3))


def mean_needs(self, model, tokens):
    return (Need((Z,), mean_of_z, dims="head", params={"scale": self.scale}),)


def mean_analyse(self, observation):
    (need,) = self.needs(None, None)
    return dataset(observation, mean=("layer head", observation[need][:, 0], "share", None))


def crash(z, site):
    """A reducer with a mistake in it."""
    return [][3]


def broken(self, observation):
    raise InputError("a bad day", "a good one", "Wait")


def steps(model, tokens, *, progress=None):
    for step in range(3):
        if progress:
            progress(step / 3)
        yield dataset(loss=("step", np.arange(step + 1.0), "nats", (0, None)))


def figure(result):
    from workbench.figures import heads_grid

    return heads_grid(result, "mean", title="Mean of z")


def crash_needs(self, model, tokens):
    return (Need((Z,), crash, dims="head"),)


SCALE = {"scale": (Annotated[float, Range(0, 2)], 1.0)}
MEAN = tiny_view(
    OnPrompt,
    "mean-z",
    {"needs": mean_needs, "analyse": mean_analyse},
    title="Mean of z",
    fields=SCALE,
    figures=(figure,),
)
BROKEN = tiny_view(OnPrompt, "broken", {"needs": mean_needs, "analyse": broken}, fields=SCALE)
BUG = tiny_view(OnPrompt, "bug", {"needs": crash_needs, "analyse": broken})
STUDY = tiny_study("steps", steps)


@pytest.fixture
def engine(tmp_path):
    made = Engine(
        Settings(models=("tiny",), directory=tmp_path),
        [MEAN, BROKEN, BUG, STUDY],
        load=lambda n, p: tiny_model("llama"),
    )
    assert made.hosted("tiny").loading.finished.wait(60)
    yield made
    made.close()


def finished(engine, request):
    job = engine.submit(request, "me")
    if job is not None:
        assert job.finished.wait(60) and job.state == "done", job.error
    return job


def test_a_run_answers_all_and_one_failure_costs_the_others_nothing(engine):
    request = engine.request("tiny", TEXT, {})
    finished(engine, request)
    alone = MEAN.analysis().run(engine.hosted("tiny").model, Prompt.ids([5, 9, 5, 7, 9]))
    assert np.array_equal(engine.found(request, "mean-z")["mean"], alone["mean"])
    assert isinstance(engine.found(request, "broken"), Failure)
    assert "a bad day" in engine.found(request, "broken").sentence
    assert "a mistake in it and not yours: IndexError" in engine.found(request, "bug").sentence
    surprisal = engine.found(request, "surprisal")["surprisal"].values
    log_probs = observe(engine.hosted("tiny").model, Prompt.ids([5, 9, 5, 7, 9]), positions="all").log_probs[0]
    expected = [-float(log_probs[i, t]) for i, t in enumerate([9, 5, 7, 9])]
    assert np.isnan(surprisal[0]) and np.allclose(surprisal[1:], expected, atol=1e-6)


def test_memory_that_runs_out_is_no_bug_in_the_log(engine, caplog):
    """The terminal of whoever started the page showed a traceback for it."""
    short = RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 610271232 bytes.")
    for number, error in enumerate((short, IndexError("list index out of range"))):
        engine._keep(f"{number:064x}", Failure("x", "X", error))
    assert [record.exc_info[1] for record in caplog.records] == [error]


def test_a_head_pattern_from_the_kept_state_equals_the_full_pass(engine):
    request = engine.request("tiny", TEXT, {})
    finished(engine, request)
    need = Need((PATTERN,), whole, dims="head query key")
    full = observe(engine.hosted("tiny").model, Prompt.ids([5, 9, 5, 7, 9]), [need])[need]
    for layer in range(2):
        for head in range(4):
            assert torch.equal(torch.from_numpy(pattern_of(engine, request, layer, head)), full[layer, 0, head])
    later = full[1, 0, 2][1:]  # the first token sees nothing but itself, and would count on both sides
    said = engine.of_layer(request, engine.slice_of(request, "attention", {"layer": 1, "head": 2}), "me").attrs[
        "summary"
    ]
    assert f"gives {later[:, 0].mean():.0%} of its attention to the first token" in said
    assert f"and {later.diagonal(1).mean():.0%} to the token itself" in said
    with pytest.raises(InputError, match="L9H0"):
        pattern_of(engine, request, 9, 0)


def test_results_that_many_ask_for_at_once_are_those_of_single_runs(engine):
    """Bit for bit: 36 windows at once, every prompt from three of them."""
    texts = [" ".join(str(3 + (7 * i * j) % 60) for j in range(1, 4 + i % 5)) for i in range(12)]
    with ThreadPoolExecutor(12) as pool:

        def ask_for(text):
            request = engine.request("tiny", text, {})
            finished(engine, request)
            return engine.found(request, "mean-z")

        found = list(pool.map(ask_for, texts * 3))
    model = tiny_model("llama")  # another than the engine's
    alone = {text: MEAN.analysis().run(model, Prompt.ids([int(i) for i in text.split()]))["mean"] for text in texts}
    for text, one in zip(texts * 3, found, strict=True):
        assert np.array_equal(one["mean"], alone[text]), text


def pattern_of(engine, request, layer, head):
    found = engine.of_layer(request, engine.slice_of(request, "attention", {"layer": layer, "head": head}), "me")
    return found["pattern"].values


def whole(pattern, site):
    """All patterns as they are."""
    return pattern.float().clone()


def test_a_second_run_computes_nothing_and_a_changed_param_only_its_own(engine):
    finished(engine, engine.request("tiny", TEXT, {}))
    assert finished(engine, engine.request("tiny", TEXT, {"broken": {}})) is None  # a refusal stays one
    request = engine.request("tiny", TEXT, {"mean-z": {"scale": 2.0}})
    assert [entry.name for entry in engine._missing(request, engine.wanted(request))] == ["mean-z"]
    finished(engine, request)
    base = engine.found(engine.request("tiny", TEXT, {}), "mean-z")
    assert np.allclose(engine.found(request, "mean-z")["mean"], 2 * base["mean"])


def test_results_survive_a_restart(engine, tmp_path):
    request = engine.request("tiny", TEXT, {})
    finished(engine, request)
    again = Engine(Settings(models=("tiny",), directory=tmp_path), [MEAN], load=lambda n, p: tiny_model("llama"))
    again.hosted("tiny").loading.finished.wait(60)
    assert again.found(again.request("tiny", TEXT, {}), "mean-z") is not None
    pattern = pattern_of(again, again.request("tiny", TEXT, {}), 1, 2)  # the states are computed again
    assert np.allclose(pattern, pattern_of(engine, request, 1, 2), atol=1e-6)
    again.close()


def test_interventions_change_the_run_and_its_slices(engine):
    plain, without = engine.request("tiny", TEXT, {}), engine.request("tiny", TEXT, {}, edits=["L0H1", "L0H1"])
    assert list(map(str, without.edits)) == ["L0H1"] and without.keys["mean-z"] != plain.keys["mean-z"]
    assert without.keys["steps"] != plain.keys["steps"]  # its passes are edited too
    finished(engine, plain)
    finished(engine, without)
    prompt, edit = Prompt.ids([5, 9, 5, 7, 9]), [Ablate(Head(0, 1))]
    alone = MEAN.analysis().run(engine.hosted("tiny").model, prompt, interventions=edit)
    assert np.array_equal(engine.found(without, "mean-z")["mean"], alone["mean"])
    assert float(engine.found(without, "mean-z")["mean"].sel(layer=0, head=1)) == 0
    need = Need((PATTERN,), whole, dims="head query key")
    full = observe(engine.hosted("tiny").model, prompt, [need], interventions=edit)[need]
    assert np.array_equal(pattern_of(engine, without, 1, 2), full[1, 0, 2].numpy())
    assert not np.array_equal(pattern_of(engine, without, 1, 2), pattern_of(engine, plain, 1, 2))
    for wrong in (["L9H0"], ["L0"], [[0, 1]], ["1 cannot see 3"], "L0H1", 3):
        with pytest.raises(InputError):
            engine.request("tiny", TEXT, {}, edits=wrong)


def last_logits(self, model, tokens, *, progress=None, allow_network=False):
    """Logits of the last position, on the prompt or on tokens of its own."""
    seen = observe(model, [tokens if self.prompted else Prompt.ids([2, 4, 8])], positions="last")
    yield dataset(logit=("step", seen.logits[0][-1].float().numpy(), "nats", None))


def stimulus(self, model, progress=None):
    return Stimulus((Prompt.ids([2, 4, 8]),))


def model_analyse(self, observation):
    (need,) = self.needs(None, None)
    return dataset(None, mean=("layer head", observation[need][:, 0].numpy(), "share", None))


def test_interventions_reach_studies_and_what_is_of_the_model(tmp_path):
    views = [
        tiny_view(Study, "logits", {"partials": last_logits}),
        tiny_view(Study, "own-logits", {"partials": last_logits}, prompted=False),
        tiny_view(OnModel, "of-model", {"stimulus": stimulus, "needs": mean_needs, "analyse": model_analyse},
                  fields=SCALE),
        tiny_view(Study, "fixed", {"partials": last_logits, "editable": False}),
    ]  # fmt: skip
    engine = Engine(Settings(models=("tiny",), directory=tmp_path), views, load=lambda n, p: tiny_model("llama"))
    try:
        assert engine.hosted("tiny").loading.finished.wait(60)
        model, prompt, edit = engine.hosted("tiny").model, Prompt.ids([5, 9, 5, 7, 9]), [Ablate(Head(0, 1))]
        plain, without = engine.request("tiny", TEXT, {}), engine.request("tiny", TEXT, {}, edits=["L0H1"])
        for view in views:
            for request in (plain, without):
                assert engine.submit_entry(request, view.name, "me").finished.wait(60)
        for view in views[:3]:
            found, intact = engine.found(without, view.name), engine.found(plain, view.name)
            alone = view.analysis().run(model, prompt, interventions=edit)
            (name,) = found.data_vars
            assert np.array_equal(found[name], alone[name]) and not np.array_equal(found[name], intact[name])
            assert without.keys[view.name] != plain.keys[view.name]
            assert json.loads(found.attrs["provenance"])["interventions"] == [str(edit[0])]
        assert isinstance(engine.found(plain, "fixed"), xr.Dataset)
        refused = engine.found(without, "fixed").sentence
        assert "the model as it is" in refused and "Leave the interventions out." in refused
        shown = shown_of(engine, Asked(id="x", model="tiny", text=TEXT, edits=("L0H1",)))
        _, words, _ = large_view(engine, Seen(name="fixed"), shown, {}, False, "me")
        assert refused in text_of(words)
    finally:
        engine.close()


@pytest.mark.parametrize("edits", [(), ("L1H0",)])
def test_a_lens_around_another_token_is_that_of_a_run_of_its_own(tmp_path, edits):
    """From the kept states, with only the last block run; under an intervention by a whole pass."""
    ids = [(5 * i) % 90 for i in range(40)]
    engine = Engine(Settings(models=("tiny",), directory=tmp_path), [LENS], load=lambda n, p: tiny_model("llama"))
    try:
        assert engine.hosted("tiny").loading.finished.wait(60)
        request = engine.request("tiny", " ".join(map(str, ids)), {}, edits=edits)
        finished(engine, request)
        assert engine.around(request, "logit-lens", 39, "me") == (False, None)  # the run's own window holds it
        model = engine.hosted("tiny").model
        for pos, first in ((3, 0), (17, 16), (23, 16)):
            is_outside, found = engine.around(request, "logit-lens", pos, "me")
            assert is_outside and found["pos"].values.tolist() == list(range(first, first + 16))
            own = LogitLens(positions=",".join(map(str, range(first, first + 16)))).run(
                model, Prompt.ids(ids), interventions=[phrase(text).intervention(model, None) for text in edits]
            )
            # The last block sees the same states; its sums are those of the same batch.
            np.testing.assert_allclose(found["entropy"], own["entropy"], atol=1e-5)
            assert (found["top_token"].values == own["top_token"].values).all()
            assert found.attrs["spec_key"] == own.attrs["spec_key"]
    finally:
        engine.close()


@pytest.mark.parametrize("edits", [["L0H1 mean"], ["L0 MLP mean"], ["L1N3", "L0 attention"], ["3 cannot see 1"]])
def test_a_slice_under_any_intervention_is_that_of_the_whole_run(engine, edits):
    request = engine.request("tiny", TEXT, {}, edits=edits)
    finished(engine, request)
    model = engine.hosted("tiny").model
    means = measure_means(model, hooks=MEAN_HOOKS)
    values = [phrase(text).intervention(model, lambda: means) for text in edits]
    need = Need((PATTERN,), whole, dims="head query key")
    full = observe(model, Prompt.ids([5, 9, 5, 7, 9]), [need], interventions=values)[need]
    for layer in (0, 1):
        np.testing.assert_allclose(pattern_of(engine, request, layer, 2), full[layer, 0, 2], atol=1e-6)
    record = json.loads(engine.found(request, "mean-z").attrs["provenance"])
    assert set(record["interventions"]) == set(map(str, values))
    changed = engine.submit_continuation(request, 3, 0, 0, "me")
    assert changed.finished.wait(60)
    ids = [5, 9, 5, 7, 9]
    for _ in range(3):
        ids.append(int(observe(model, Prompt.ids(ids), interventions=values).logits[0][-1].argmax()))
    assert changed.result == " ".join(map(str, ids))


def _passes(click):
    """Of a study: an edited pass with needs, and one that restarts; where a click comes in the middle of both."""
    needs = [Need((PATTERN,), whole, dims="head query key"), Need((RESID_PRE,), keep, dims="pos d_model")]

    def study(model, tokens, *, progress=None):
        told = lambda share: click(model, progress, share)
        edited = observe(model, [tokens], needs, interventions=[Ablate(Head(0, 1))], positions="last", progress=told)
        again = observe(model, [tokens], needs[:1], start=(1, edited[needs[1]][1]), progress=told)
        values = torch.cat([edited[needs[0]].flatten(), again[needs[0]].flatten(), again.logits[0][-1]])
        yield dataset(loss=("step", values.numpy(), "nats", (None, None)))

    return study


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_click_is_answered_within_a_pass_of_a_study_and_no_bit_of_either_is_another(tmp_path, kind):
    answers, before, held, worker = [], [], [], {}

    def click(model, progress, share):
        before.append(len(answers))
        job = Job(
            "click", f"click {share}", SELECTION, lambda job: answers.append(pattern_of_now(*worker["on"])), {"me"}
        )
        worker["is"].submit(job)
        progress(share)
        held.append(model.is_held)

    asked = tiny_study("slow", _passes(click))
    calm = tiny_study("calm", _passes(lambda model, progress, share: progress(share)))
    engine = Engine(
        Settings(models=("tiny",), directory=tmp_path), [MEAN, asked, calm], load=lambda n, p: tiny_model(kind)
    )
    try:
        assert engine.hosted("tiny").loading.finished.wait(60)
        request = engine.request("tiny", TEXT, {})
        finished(engine, request)
        worker |= {"is": engine.hosted("tiny").worker, "on": (engine, request)}
        for name in ("slow", "calm"):
            job = engine.submit_entry(request, name, "me")
            assert job.finished.wait(60) and job.state == "done", job.error
        found = [engine.found(request, name)["loss"].values for name in ("slow", "calm")]
        assert all(held) and before == list(range(3)) and len(answers) == 3  # each at once
        assert np.array_equal(*found)
        assert all(np.array_equal(answer, pattern_of_now(engine, request)) for answer in answers)
    finally:
        engine.close()


def test_nothing_runs_within_a_pass_whose_rotations_depend_on_the_length(engine):
    hosted = engine.hosted("tiny")
    assert hosted._admits_another()
    with hosted.model.passes.run():
        assert hosted._admits_another()
        hosted.model.adapter.by_length = True
        assert not hosted._admits_another()
    assert hosted._admits_another()  # between two passes
    with hooks(hosted.model, [Ablate(Head(0, 1))]):
        assert not hosted._admits_another()  # these act on whatever this thread runs
        with hosted.model.passes.run():
            assert not hosted._admits_another()
        observe(hosted.model, Prompt.ids([1, 2]))


def test_more_tokens_give_way_to_a_prompt(engine):
    request, other = engine.request("tiny", TEXT, {}), engine.request("tiny", "5 9 5", {})
    finished(engine, request)
    gate, begun = threading.Event(), threading.Event()

    def wait(job):
        begun.set()
        assert gate.wait(60)

    engine.hosted("tiny").worker.submit(Job("wait", "wait", SELECTION, wait, {"me"}))
    assert begun.wait(60)
    more = engine.submit_continuation(request, 3, 0, 0, "me")
    prompt = engine.submit(other, "you")
    assert engine.hosted("tiny").worker.before(more) == 2 and engine.hosted("tiny").worker.before(prompt) == 1
    gate.set()
    assert more.finished.wait(60) and prompt.state == "done"
    assert engine.hosted("tiny").worker.before(more) == 0


def pattern_of_now(engine, request):
    """The pattern of L1H2, computed in the thread that asks."""
    model, kept = engine.hosted("tiny").model, engine.cache.get(request.states)
    return slice_of(Attention(layer=1, head=2), model, kept)["pattern"].values


def test_a_figure_that_a_partial_result_does_not_hold_is_said_to_come():
    result = dataset(loss=("step", np.arange(2.0), "nats", (0, None)))
    with pytest.raises(InputError, match="no figure yet"):
        drawn(MEAN, result.assign_attrs(partial=1), 0, False)
    with pytest.raises(InputError, match="variable 'mean'"):
        drawn(MEAN, result, 0, False)


def test_a_study_is_partial_until_it_ends(engine):
    request = engine.request("tiny", TEXT, {})
    job = engine.submit_entry(request, "steps", "me")
    assert job.finished.wait(60)
    assert engine.found(request, "steps")["loss"].size == 3 and "partial" not in engine.found(request, "steps").attrs
    assert engine.submit_entry(request, "steps", "me") is None


def test_what_cannot_be_computed_says_so_in_its_own_place(engine):
    def unavailable(self, model):
        raise UnavailableError("no trained probes", "some", "Train them")

    def fails(model, tokens, *, progress=None):
        yield dataset(loss=("step", np.zeros(1), "nats", (0, None)))
        raise InputError("half", "all", "Try again")

    needed = {"needs": crash_needs, "analyse": broken, "artifact": unavailable}
    untrained, half = tiny_view(OnPrompt, "untrained", needed), tiny_study("half", fails)
    engine.standing |= {"untrained": untrained, "half": half}
    request = engine.request("tiny", TEXT, {})
    assert engine.found(request, "untrained").sentence == "Got no trained probes; expected some. Train them."
    finished(engine, request)
    assert engine.found(request, "mean-z") is not None
    assert engine.submit_entry(request, "half", "me").finished.wait(60)
    assert engine.found(request, "half").sentence == "Got half; expected all. Try again."
    assert engine.submit_entry(request, "half", "me") is None  # until somebody presses Start
    assert start_view(engine, Asked(id="x", model="tiny", text=TEXT), "half", True, "me") == ""


def test_the_page_shows_the_card_of_the_probes_that_are_there(monkeypatch, tmp_path):
    """Probes that were trained anew or taken away elsewhere kept their card on the page, and Start trained nothing."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(readout_probes, "train", lambda model, **options: train(model, sentences(), **options))
    model, name = speller(), TokenErasureProbes.name
    engine = Engine(
        Settings(models=("m",), directory=tmp_path / "results"), [readout_probes.VIEW], load=lambda *_: model
    )
    assert engine.hosted("m").loading.finished.wait(60)

    def shown():
        return engine.found(engine.request("m", "abc def", {}), name)

    def start():
        job = engine.submit_entry(engine.request("m", "abc def", {}), name, "me")
        assert job is not None and job.finished.wait(60) and job.state == "done", job
        assert shown().attrs["probes"] == find(model.identity.key).digest

    assert shown() is None
    start()
    first = shown()
    made = train(model, sentences(30), again=True)  # as by the shell, beside the open page
    assert made.digest != first.attrs["probes"] and shown() is None
    start()
    for file in default_path(model.identity.key).parent.iterdir():
        file.unlink()
    assert shown() is None
    start()
    xr.testing.assert_equal(shown(), first)  # trained again, of the same text
    engine.close()


def test_refusals_are_sentences(engine):
    with pytest.raises(InputError, match="the model 'other'"):
        engine.hosted("other")
    with pytest.raises(InputError, match="at most 200000"):
        engine.request("tiny", "5 " * 101_000, {})
    with pytest.raises(InputError, match="range 0 to 2"):
        engine.request("tiny", TEXT, {"mean-z": {"scale": 3.0}})
    small = Engine(Settings(models=("tiny",), budget=10), [MEAN], load=lambda n, p: tiny_model("llama"))
    small.hosted("tiny").loading.finished.wait(60)
    with pytest.raises(RefusedError, match="GB"):
        small.submit(small.request("tiny", TEXT, {}), "me")
    small.close()


def test_a_model_that_does_not_load_says_why():
    def fails(name, progress):
        raise UnavailableError("no file", "a file", "Fetch it")

    engine = Engine(Settings(models=("tiny",)), [MEAN], load=fails)
    engine.hosted("tiny").loading.finished.wait(60)
    assert "no file" in engine._hosted["tiny"].loading.error
    with pytest.raises(UnavailableError, match="no file"):
        _ = engine._hosted["tiny"].ready
    engine.close()


def shown_of(engine, asked) -> Shown:
    """What the page holds of a run, as far as a look asks for it."""
    return Shown(**asked.model_dump(), tokens=("#3",), sizes=Sizes(n_layers=2, n_heads=4, d_mlp=64))


def test_the_page_promotes_only_its_latest_request(engine):
    old, _ = ask(engine, "me", "tiny", TEXT, {})
    new, _ = ask(engine, "me", "tiny", "3 4 3", {})
    engine.hosted("tiny").worker.get(new.job).finished.wait(60)
    shown = shown_of(engine, old)
    found = look(engine, "me", new, shown, {})
    assert found.shown.id == new.id and list(found.shown.tokens) == ["#3", "#4", "#3"]
    assert found.done["mean-z"] == "ok" and found.done["broken"].startswith("failed ")
    assert look(engine, "me", new, found.shown, found.done).shown is None


def test_a_restarted_server_says_so_and_keeps_the_prompt(engine):
    asked = Asked(id="x", model="tiny", text="8 8 8", job="gone")
    found = look(engine, "me", asked, None, {})
    assert found.shown is None and "restarted" in found.notice and found.busy
    assert engine.hosted("tiny").worker.get(found.again).finished.wait(60)
    assert look(engine, "me", asked.model_copy(update={"job": found.again}), None, {}).shown.text == "8 8 8"


def test_a_run_that_waited_for_the_model_of_another_server_was_lost_in_a_restart(engine):
    asked, _ = ask(engine, "me", "tiny", "8 8 8", {})
    waited = asked.model_copy(update={"id": "y", "text": "8 8 9", "job": "", "boot": "another"})
    found = look(engine, "me", waited, None, {})
    assert "restarted" in found.notice and found.again
    now = changed_request(engine, waited, found)
    assert now.boot == engine.boot and now.job == found.again
    assert look(engine, "me", now, None, {}).notice is None


def test_a_forgotten_run_is_no_restart(engine):
    asked, _ = ask(engine, "me", "tiny", "8 8 8", {})
    worker = engine.hosted("tiny").worker
    assert worker.get(asked.job).finished.wait(60)
    del worker._jobs[asked.job]
    assert look(engine, "me", asked, None, {}).shown.text == "8 8 8"  # its results are there
    for key in (request := request_of(engine, asked)).keys.values():
        engine.cache.drop(key)
        (engine.cache.directory / f"{key}.nc").unlink(missing_ok=True)
    found = look(engine, "me", asked, None, {})
    assert found.notice.startswith("The results of this run are no longer kept") and found.busy
    assert worker.get(found.again).finished.wait(60) and engine.found(request, "mean-z") is not None


def test_a_forgotten_run_that_was_stopped_stays_so(engine):
    gate = occupy(engine)
    asked, _ = ask(engine, "me", "tiny", "8 8 8", {})
    engine.cancel(asked.job, "me")
    gate.set()
    del engine.hosted("tiny").worker._jobs[asked.job]
    found = look(engine, "me", asked, None, {})
    assert "a request to stop" in found.notice and found.ended == asked.id and found.again is None


def occupy(engine) -> threading.Event:
    """Keep the worker busy until the returned event is set."""
    gate, began = threading.Event(), threading.Event()

    def work(job):
        began.set()
        gate.wait(60)

    engine.hosted("tiny").worker.submit(Job("hold", "hold", SELECTION, work, {"other"}))
    assert began.wait(60)
    return gate


def test_a_run_that_waited_for_its_model_is_no_restart(tmp_path):
    gate = threading.Event()

    def load(name, progress):
        gate.wait(60)
        return tiny_model("llama")

    engine = Engine(Settings(models=("tiny",), directory=tmp_path), [MEAN], load=load)
    try:
        engine.hosted("tiny")
        asked, _ = ask(engine, "me", "tiny", TEXT, {})
        assert look(engine, "me", asked, None, {}).busy
        gate.set()
        assert engine.hosted("tiny").loading.finished.wait(60)
        found = look(engine, "me", asked, None, {})
        assert found.notice is None and found.again
        assert engine.hosted("tiny").worker.get(found.again).finished.wait(60)
        assert look(engine, "me", asked.model_copy(update={"job": found.again}), None, {}).shown.text == TEXT
    finally:
        engine.close()


def test_a_model_counts_as_loaded_only_when_its_first_run_can_be_asked_for(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        hosting, "measured_pace", lambda model: seen.append(loaded_store(engine, engine.hosted("tiny"))) or Pace()
    )
    engine = Engine(Settings(models=("tiny",), directory=tmp_path), [MEAN], load=lambda n, p: tiny_model("llama"))
    try:
        assert engine.hosted("tiny").loading.finished.wait(60)
        assert seen == [None] and loaded_store(engine, engine.hosted("tiny")).model == "tiny"
    finally:
        engine.close()


def run_of(engine) -> Shown:
    """A run that is shown."""
    asked, _ = ask(engine, "me", "tiny", TEXT, {})
    if asked.job:
        assert engine.hosted("tiny").worker.get(asked.job).finished.wait(60)
    return look(engine, "me", asked, None, {}).shown


def seen_of(engine, shown, told="") -> str:
    """What stands in the place of the study's figure, and under it."""
    _, words, said = large_view(engine, Seen(name="steps"), shown, {}, False, "me", told)
    return " ".join(text_of(words) + text_of(said)).strip()


def text_of(part) -> list[str]:
    """The texts of a component, in order."""
    if isinstance(part, list | tuple):
        return [text for one in part for text in text_of(one)]
    return [part.strip()] if isinstance(part, str) else text_of(getattr(part, "children", None) or [])


def test_what_became_of_a_study_is_said_as_the_server_knows_it(engine):
    shown = run_of(engine)
    request = request_of(engine, shown)
    assert seen_of(engine, shown).startswith("Steps: computed only when asked for.")
    gate = occupy(engine)
    assert start_view(engine, shown, "steps", True, "me") == ""
    (job,) = (job for _, job in engine.jobs("me") if job.title == "steps")
    queued = look(engine, "me", None, shown, {}).done
    assert queued["steps"] == f"queued {job.id}"
    assert seen_of(engine, shown).startswith("Steps: waits until the model is free. On this prompt, 5 tokens: about ")
    engine.cancel(job.id, "me")
    assert seen_of(engine, shown) == "Stopped before its first result. Start again"
    assert look(engine, "me", None, shown, queued).done["steps"] == f"cancelled {job.id}"
    start_view(engine, shown, "steps", True, "me")
    (again,) = (job for _, job in engine.jobs("me") if job.title == "steps" and job.alive)
    engine.cancel(again.id, "me")  # between two looks: the page must draw all the same
    assert look(engine, "me", None, shown, {}).done["steps"] == f"cancelled {again.id}"
    gate.set()
    assert engine.submit_entry(request, "steps", "me").finished.wait(60)
    assert look(engine, "me", None, shown, {}).done["steps"] == "ok"
    assert engine.hosted("tiny").worker.fates([request.keys["steps"]])[request.keys["steps"]].state == "done"


def test_a_study_that_a_restart_has_ended_is_told_from_one_that_never_began(engine):
    shown = run_of(engine)
    assert "steps" not in look(engine, "me", None, shown, {"steps": f"running {engine.boot}-1"}).done
    told = look(engine, "me", None, shown, {"steps": "running other-1 2 0.500"}).done
    assert told["steps"] == "restarted other-1"
    assert look(engine, "me", None, shown, told).done is None  # it stays so
    said = "The server was restarted before this came to its end. Start again"
    assert seen_of(engine, shown, told["steps"]) == said
    assert engine.submit_entry(request_of(engine, shown), "steps", "me").finished.wait(60)
    assert look(engine, "me", None, shown, told).done["steps"] == "ok"


def test_a_second_press_of_start_takes_no_result_from_the_first(tmp_path):
    went, go = threading.Semaphore(0), threading.Semaphore(0)

    def study(model, tokens, *, progress=None):
        for step in range(2):
            yield dataset(loss=("step", np.arange(step + 1.0), "nats", (0, None))).assign_attrs(summary=f"{step} done.")
            went.release()
            assert go.acquire(timeout=60)

    def loss_figure(result):
        from workbench.figures import series

        return series(result, "loss", "step", title="Loss")

    slow = tiny_study("steps", study, figures=(loss_figure,))
    engine = Engine(Settings(models=("tiny",), directory=tmp_path), [slow], load=lambda n, p: tiny_model("llama"))
    try:
        assert engine.hosted("tiny").loading.finished.wait(60)
        shown = run_of(engine)
        start_view(engine, shown, "steps", True, "me")
        assert went.acquire(timeout=60)
        assert start_view(engine, shown, "steps", True, "me") == ""
        assert seen_of(engine, shown) == "So far: 0 done."
        (job,) = (job for _, job in engine.jobs("me") if job.title == "steps")
        assert look(engine, "me", None, shown, {}).done["steps"] == f"running {job.id} 1 0.000"
        engine.cancel(job.id, "me")
        assert seen_of(engine, shown) == "Stopping ...; so far: 0 done."
        go.release()
        assert job.finished.wait(60)
        stopped = seen_of(engine, shown)
        assert stopped.startswith("Stopped before its end; so far:") and stopped.endswith("done. Start again")
        go.release(9)
        start_view(engine, shown, "steps", True, "me")
        (again,) = (job for _, job in engine.jobs("me") if job.title == "steps" and job.alive)
        assert again.finished.wait(60) and seen_of(engine, shown) == "1 done."
    finally:
        go.release(9)
        engine.close()


def test_remembered_jobs_hold_no_results_outside_the_cache(engine):
    shown = run_of(engine)
    request = request_of(engine, shown)
    assert engine.submit_entry(request, "steps", "me").finished.wait(60)
    assert pattern_of(engine, request, 1, 2).ndim == 2
    assert not [job for _, job in engine.jobs("me") if isinstance(job.result, xr.Dataset)]
    kept = weakref.ref(engine.of_layer(request, engine.slice_of(request, "attention", {"layer": 1, "head": 2}), "me"))
    for key in list(engine.cache._kept):
        engine.cache.drop(key)
    gc.collect()
    assert kept() is None  # nobody else holds what the cache let go


def test_a_continuation_that_does_not_come_says_why(engine):
    request = engine.request("tiny", TEXT, {})
    gate = occupy(engine)
    job = engine.submit_continuation(request, 2, 0, 0, "me")
    assert came(engine, Continuing(model="tiny", job=job.id)) == ({}, "")  # it is waited for
    engine.cancel(job.id, "me")
    gate.set()
    back, why = came(engine, Continuing(model="tiny", job=job.id))
    assert back == {"continuing": None} and "a request to stop" in why
    assert "restarted" in came(engine, Continuing(model="tiny", job="other-1"))[1]
    assert "no longer kept" in came(engine, Continuing(model="tiny", job=f"{engine.boot}-1"))[1]
    job = engine.submit_continuation(request, 2, 0, 0, "me")
    assert job.finished.wait(60)
    back, why = came(engine, Continuing(model="tiny", job=job.id))
    assert back["prompt"].startswith(TEXT) and why == "" and "chat" not in back


def test_bad_input_comes_back_as_one_sentence(engine):
    assert ask(engine, "me", "tiny", "", {})[1].startswith("Got ")
    assert ask(engine, "me", "tiny", "200", {})[1].startswith("Got token id 200")
    assert "tokens" in prompt_line(engine, "tiny", TEXT, {})[0].children
    typed = lambda value: TypedParam(entry="mean-z", name="scale", value=value)
    assert changed_params(engine, typed(1.5), {}) == ({"mean-z": {"scale": 1.5}}, "")
    assert changed_params(engine, typed(1.0), {}) == (None, "")
    assert "range 0 to 2" in changed_params(engine, typed(9), {})[1]


def test_a_field_takes_along_those_that_were_changed_before_it(engine):
    """The answer to an earlier one may be on its way: this one's would write the params without it."""
    later = TypedParam(entry="mean-z", name="scale", value=1.5, also={"scale": 9, "gone": 1})
    assert changed_params(engine, later, {}) == ({"mean-z": {"scale": 1.5}}, "")
    other = TypedParam(entry="mean-z", name="no-such", value=1, also={"scale": 0.5})
    assert changed_params(engine, other, {"else": {"n": 1}}) == ({"else": {"n": 1}, "mean-z": {"scale": 0.5}}, "")
    bad = TypedParam(entry="mean-z", name="no-such", value=1, also={"scale": 9})
    assert changed_params(engine, bad, {}) == (None, "")  # it was said when it was typed


def test_no_view_names_a_file_before_anybody_typed_one(tmp_path):
    from probes import CATALOG

    engine = Engine(Settings(models=("toy-induction",)), CATALOG)
    try:
        assert engine.hosted("toy-induction").loading.finished.wait(60)
        assert set(engine.request("toy-induction", "3 7 9", {}).analyses) == set(engine.standing)
        with pytest.raises(InputError, match="--allow-files"):
            engine.request("toy-induction", "3 7 9", {"circuit": {"task": "/etc/passwd"}})
        for step in (1, 2):
            (tmp_path / f"step{step}").mkdir()
            (tmp_path / f"step{step}" / "config.json").write_text("{}")
        series = {"checkpoints": f"{tmp_path / 'step1'};2={tmp_path / 'step2'}"}
        with pytest.raises(InputError, match="--allow-files"):
            engine.request("toy-induction", "3 7 9", {"training-timeline": series})
        engine.request("toy-induction", "3 7 9", {"training-timeline": {"checkpoints": "a/b@step1;a/b@step2"}})
    finally:
        engine.close()


def named_texts(self, model, tokens, *, progress=None, allow_network=False):
    """Says what it was asked for, and whether it may fetch."""
    yield dataset(allowed=("", float(allow_network), "flag", (0, 1))).assign_attrs(texts=self.texts)


def test_a_browser_names_files_only_where_the_explorer_was_started_for_it(tmp_path):
    texts = {"texts": (Annotated[str, Choice(("prose",), files=True)], "prose")}
    view = tiny_view(Study, "named", {"partials": named_texts}, fields=texts)
    for any_file in (False, True):
        settings = Settings(models=("tiny",), any_file=any_file, allow_network=any_file)
        engine = Engine(settings, [view], load=lambda n, p: tiny_model("llama"))
        assert engine.hosted("tiny").loading.finished.wait(60)
        engine.request(
            "tiny", TEXT, {"named": {"texts": "hub:some/data"}}
        )  # not a file; the network is asked about later
        params = {"named": {"texts": str(tmp_path)}}
        if not any_file:
            with pytest.raises(InputError, match=r"--allow-files"):
                engine.request("tiny", TEXT, params)
            assert "--allow-files" in ask(engine, "me", "tiny", TEXT, params)[1]
        request = engine.request("tiny", TEXT, params if any_file else {})
        job = engine.submit_entry(request, "named", "me")
        assert job.finished.wait(60)
        found = engine.found(request, "named")
        assert float(found["allowed"]) == any_file and found.attrs["texts"] == (str(tmp_path) if any_file else "prose")
        engine.close()


def test_a_study_on_its_own_texts_is_done_once_for_all_prompts(tmp_path):
    entries = [STUDY, tiny_study("own-texts", steps, prompted=False)]
    engine = Engine(Settings(models=("tiny",)), entries, load=lambda n, p: tiny_model("llama"))
    assert engine.hosted("tiny").loading.finished.wait(60)
    one, other = (engine.request("tiny", text, {}) for text in (TEXT, "9 5 9"))
    for entry in entries:
        assert engine.submit_entry(one, entry.name, "me").finished.wait(60)
    assert engine.found(other, "steps") is None
    assert engine.found(other, "own-texts") is engine.found(one, "own-texts") is not None
    engine.close()


def test_two_sessions_get_their_own_answers(engine):
    one, two = ask(engine, "one", "tiny", "5 9 5", {})[0], ask(engine, "two", "tiny", "9 5 9", {})[0]
    for asked in (one, two):
        engine.hosted("tiny").worker.get(asked.job).finished.wait(60)
    assert (
        engine.found(request_of(engine, one), "mean-z")["mean"].values.tolist()
        != engine.found(request_of(engine, two), "mean-z")["mean"].values.tolist()
    )
    assert {job.title for _, job in engine.jobs("one")} == {"prompt", "load tiny"}


def test_a_model_that_does_not_load_is_tried_again_only_when_asked(tmp_path):
    tries = []

    def load(name, progress):
        tries.append(name)
        if len(tries) < 3:
            raise UnavailableError("no such model", "one", "Check the path")
        return tiny_model("llama")

    engine = Engine(Settings(models=("tiny",), directory=tmp_path), [MEAN], load=load)
    try:
        for _ in range(3):  # as the page looks again and again
            assert engine.hosted("tiny").loading.finished.wait(60)
        assert len(tries) == 1
        asked, error = ask(engine, "me", "tiny", TEXT, {})
        assert asked is None and "no such model" in error and len(tries) == 1
        asked, error = ask(engine, "me", "tiny", TEXT, {}, again=True)
        assert asked is not None or "no such model" in error  # as quick as it failed
        assert engine.hosted("tiny").loading.finished.wait(60) and len(tries) == 2
        assert engine.hosted("tiny", again=True).loading.finished.wait(60)
        assert engine.hosted("tiny").model is not None and len(tries) == 3
    finally:
        engine.close()


def test_what_is_asked_of_weights_is_never_answered_by_others():
    """A notebook that trains while the page computes: results of the new weights lay under the keys of the old ones,
    and a click continued their states with the new weights."""
    hf = tiny_hf("llama", 3)
    model = wrap(hf, None, name="mine")
    engine = Engine(Settings(models=("mine",)), [LENS], load=lambda name, report: model)
    try:
        assert engine.hosted("mine").loading.finished.wait(60)
        asked = engine.request("mine", "3 7 9 5", {})
        with torch.no_grad():
            hf.model.layers[1].mlp.down_proj.weight.mul_(2)
        job = engine.submit(asked, "session")
        assert job.finished.wait(60) and "weights of mine that were changed since" in job.error
        assert engine.found(asked, "logit-lens") is None and engine.cache.get(asked.states) is None
        with pytest.raises(RefusedError, match="Run the prompt again"):
            engine.of_layer(asked, Attention(layer=2, head=1), "session")
        again = engine.request("mine", "3 7 9 5", {})
        assert engine.submit(again, "session").finished.wait(60)
        expected = LogitLens().run(model, Prompt.ids([3, 7, 9, 5]))
        np.testing.assert_array_equal(engine.found(again, "logit-lens")["target_prob"], expected["target_prob"])
    finally:
        engine.close()
