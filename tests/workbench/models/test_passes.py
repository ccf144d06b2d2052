"""What a pass sets acts in its own thread and pass, and in no other."""

import multiprocessing
import threading

import pytest
import torch

from probes.circuits.attribution_patching import gradients
from tests.tiny_models import KINDS, tiny_hf, tiny_model
from workbench import Ablate, Head, Need, Prompt, Steer, Z, keep, measure_means, observe
from workbench.errors import InputError
from workbench.loading.pretrained import wrap
from workbench.loading.toys.transformer import ToyConfig, ToyTransformer
from workbench.models.hooks import RESID_PRE
from workbench.models.passes import Passes
from workbench.models.prompt import tokenise
from workbench.observation.metrics import Metric
from workbench.observation.sweeps import base_run, values_of

CLEAN, OTHER = Prompt.ids([0, 7, 31, 64, 12, 90, 45, 7, 31]), Prompt.ids([0, 3, 18, 77])
STATES, PARTS = Need((RESID_PRE,), keep, dims="pos d_model"), Need((Z,), keep, dims="pos head d_head")
METRIC = Metric("logit difference", 31, 7)


@pytest.fixture(scope="module", params=[*KINDS, "toy"])
def model(request):
    if request.param != "toy":
        return tiny_model(request.param, n_layers=3)
    torch.manual_seed(0)
    return wrap(ToyTransformer(ToyConfig(n_layers=3, d_mlp=32, d_vocab=96, norm="rms")), None)


def same(one, other) -> bool:
    return torch.equal(one.logits[0], other.logits[0]) and all(torch.equal(one[n], other[n]) for n in one.results)


def test_a_pass_within_a_pass_is_a_pass_of_its_own(model):
    """From a progress callback: its own edits, needs and restart, and none of those around it; the same outside."""
    states = observe(model, OTHER, [STATES])[STATES][2]
    inner = lambda: observe(model, OTHER, [PARTS], interventions=[Ablate(Head(2, 3))], start=(2, states))
    kept = observe(model, CLEAN, [STATES])[STATES][1]
    outer = lambda note: observe(
        model, CLEAN, [STATES, PARTS], interventions=[Ablate(Head(1, 1))], start=(1, kept), progress=note
    )
    alone, around, seen = inner(), outer(None), []
    assert same(outer(lambda share: seen.append(inner())), around)
    assert len(seen) == 2 and all(same(found, alone) for found in seen)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_default_dtype_of_few_digits_is_refused(model, dtype):
    """Edges of routes were tables of bfloat16, and a TypeError."""
    torch.set_default_dtype(dtype)
    try:
        with pytest.raises(InputError, match="set_default_dtype"):
            observe(model, OTHER)
    finally:
        torch.set_default_dtype(torch.float32)
    observe(model, OTHER)


def test_a_model_wrapped_under_autocast_passes_its_self_check():
    """What it was held against was computed in bfloat16, and every analysis was refused."""
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = wrap(tiny_hf("llama"), None)
    assert found.selfcheck.passed


def test_a_pass_within_a_gradient(model):
    """The metric's reading is inside the pass; an observed one there runs without gradients and keeps the others."""
    tokens, seen = tokenise(model, CLEAN), []

    class Asking(Metric):
        def of_logits(self, logits):
            seen.append(observe(model, OTHER, [STATES]))
            return super().of_logits(logits)

    _, alone = gradients(model, tokens, METRIC, [Z])
    plain = observe(model, OTHER, [STATES])
    _, found = gradients(model, tokens, Asking("logit difference", 31, 7), [Z])
    assert all(torch.equal(found[key], alone[key]) for key in alone) and same(seen[0], plain)


def test_a_bare_call_in_another_thread_meets_no_hook(model):
    """One that does not even wait: while edits, needs, a restart and a stop of a pass are set."""
    ids = torch.tensor([[5, 9, 17, 40]])
    with torch.no_grad():
        before, seen = model.adapter.forward(ids), []

    def call() -> None:
        with torch.no_grad():
            seen.append(model.adapter.forward(ids))

    def note(share: float) -> None:
        thread = threading.Thread(target=call)
        thread.start()
        thread.join()

    kept = observe(model, CLEAN, [STATES])[STATES][1]
    edits = [Ablate(Head(1, 1)), Steer(2, torch.ones(model.sizes.d_model))]
    observe(
        model, CLEAN, [STATES, PARTS], interventions=edits, start=(1, kept), stop=3, positions="none", progress=note
    )
    assert len(seen) == 2 and all(torch.equal(logits, before) for logits in seen)


def test_passes_of_two_threads_wait_for_each_other(model):
    """A sweep, a gradient and an edited pass at once, of other lengths; each gives what it gives alone."""
    tokens, base = tokenise(model, CLEAN), base_run(model, CLEAN)
    cells = [[Ablate(Head(layer, head))] for layer in range(3) for head in range(4)]
    works = (
        lambda: values_of(model, base, cells, METRIC),
        lambda: gradients(model, tokens, METRIC, [Z])[1][Z, 1],
        lambda: observe(model, [CLEAN, OTHER], interventions=[Ablate(Head(0, 1))]).logits[1],
    )
    alone, wrong = [work() for work in works], []

    def again(work, expected) -> None:
        try:
            wrong.extend(i for i in range(8) if not torch.equal(work(), expected))
        except Exception as error:
            wrong.append(error)

    threads = [threading.Thread(target=again, args=pair) for pair in zip(works, alone, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_error_ends_the_pass():
    passes = Passes()
    outside = None
    with passes.run():
        outside = passes.here()
        with pytest.raises(ZeroDivisionError), passes.run():
            assert not outside() and passes.here()()
            raise ZeroDivisionError
        assert outside()
    assert not outside() and not passes.is_mine and passes.here()()


def test_the_numbers_that_everybody_draws_are_left_alone():
    """Means over random ids draw with a generator of their own."""
    model = tiny_model("llama")
    torch.manual_seed(41)
    state = torch.random.get_rng_state()
    measure_means(model, n_tokens=32)
    assert torch.equal(torch.random.get_rng_state(), state)


def split_off(model):
    """The logits of a pass in a process that is split off here."""
    forks = multiprocessing.get_context("fork")
    reads, writes = forks.Pipe(duplex=False)

    def answer():
        torch.set_num_threads(1)  # OpenMP's own threads are not there either
        writes.send(observe(model, CLEAN).logits[0].numpy())

    child = forks.Process(target=answer)
    child.start()
    try:
        assert reads.poll(60)
        return torch.from_numpy(reads.recv())
    finally:
        child.kill()
        child.join()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_process_that_is_split_off_during_a_pass_has_passes_of_its_own():
    """What another thread held was held for ever in the child: its first pass never began."""
    model = wrap(tiny_hf("llama"), None)
    expected = observe(model, CLEAN).logits[0]
    held, ended = threading.Event(), threading.Event()

    def hold():
        with model.passes.run(), model.follow._lock:
            held.set()
            ended.wait(120)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert held.wait(60)
        torch.testing.assert_close(split_off(model), expected, atol=1e-5, rtol=1e-5)  # of other numbers of threads
    finally:
        ended.set()
        thread.join()
    with model.passes.run():  # one that is split off within a pass goes on with it
        torch.testing.assert_close(split_off(model), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(observe(model, CLEAN).logits[0], expected)
