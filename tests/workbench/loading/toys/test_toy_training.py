"""Training: the same seed is the same run, whoever looks and however often it is stopped; clamps clamp."""

import json

import pytest
import torch

from workbench import PATTERN, Need, keep, load, observe
from workbench.errors import InputError, Note, UnavailableError
from workbench.intervene import Attend, Head, hooks
from workbench.loading.toys import checkpoints
from workbench.loading.toys.checkpoints import Kept
from workbench.loading.toys.clamps import held
from workbench.loading.toys.recipes import RECIPES, asked, name_of
from workbench.loading.toys.training import DivergedError, Training, evaluated
from workbench.models.selfcheck import ROWS


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache of the test's own."""
    monkeypatch.setenv("WORKBENCH_CACHE", str(tmp_path))
    return tmp_path


SMALL = "toy:induction,length=16,tokens=24,d_model=16,steps=12,every=3"


def weights(name, **more):
    recipe, step = asked(name, **more)
    Kept(recipe).ensure(step)
    return Kept(recipe).module(recipe.steps if step is None else step).state_dict()


def equal(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


def test_the_same_seed_twice_is_bit_equal_and_another_is_not(cache, monkeypatch):
    torch.manual_seed(5)
    first = weights(SMALL)
    torch.rand(3)
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache / "again"))
    assert equal(first, weights(SMALL)) and not equal(first, weights(SMALL, seed=1))


@pytest.mark.parametrize("name", [SMALL, "toy:scan-snap,steps=2", "toy:gaussian-classes,steps=2"])
def test_a_toy_is_the_same_where_float64_is_the_default(name, cache, monkeypatch):
    """A notebook's default made other weights, or none; it stays the notebook's."""
    first = weights(name)
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache / "again"))
    torch.set_default_dtype(torch.float64)
    try:
        assert equal(first, weights(name)) and load(name).identity.dtype == "float32"
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


def test_training_leaves_the_users_generators_threads_and_modes_alone():
    torch.manual_seed(3)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    tiny = torch.tensor([1e-38]) * 0.01
    with torch.no_grad():
        weights(SMALL)
        assert not torch.is_grad_enabled()
    assert torch.equal(torch.get_rng_state(), before) and torch.get_num_threads() == threads
    assert torch.equal(torch.tensor([1e-38]) * 0.01, tiny)


def test_step_n_is_n_updates():
    """Held against a plain loop of torch.optim on the same module, bit for bit."""
    recipe, _ = asked(SMALL)
    run = Training(recipe)
    untrained = {name: value.clone() for name, value in run.module.state_dict().items()}
    assert equal(untrained, weights(SMALL, step=0))
    batches = recipe.task.batch(0, 0, 32, recipe.batch)
    optimiser = torch.optim.AdamW(
        run.module.parameters(), lr=recipe.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    for batch in batches[:6]:
        optimiser.zero_grad()
        logits = run.module(batch.tokens)
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch.targets.flatten()).backward()
        optimiser.step()
    assert equal(run.module.state_dict(), weights(SMALL, step=6))


@pytest.mark.parametrize("setting", ["", ",optimiser=sgd,lr=0.05", ",clamp=L0H0 previous-token", ",horizon=2"])
def test_an_interrupted_run_goes_on_to_the_same_bits(cache, monkeypatch, setting):
    name = SMALL + setting
    whole = weights(name)
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache / "other"))
    recipe, _ = asked(name)

    def stop(step, module, found):
        if step == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Kept(recipe).ensure(seen=stop)
    assert max(Kept(recipe).steps()) == 6
    made = []
    Kept(recipe).ensure(seen=lambda step, module, found: made.append(step))
    assert made == list(recipe.grid) and equal(whole, Kept(recipe).module(12).state_dict())


@pytest.mark.parametrize("other", ["steps=7", "every=7", "steps=25,every=11"])
def test_other_steps_of_a_run_that_is_kept_are_made(cache, monkeypatch, other):
    """The longer run's state lay behind the step that was missing: it was never made, and "cannot be read"."""
    recipe, others = asked(SMALL)[0], asked(SMALL.replace("steps=12,every=3", other))[0]
    Kept(recipe).ensure()
    longest = max(recipe.steps, others.steps)
    made = [kept.step for kept in Kept(others).along()]
    assert Kept(others).folder == Kept(recipe).folder and made == list(others.grid)
    assert [kept.step for kept in Kept(recipe).along()] == list(recipe.grid)
    assert Kept(recipe).card["state"]["step"] == longest
    found = {step: Kept(others).module(step).state_dict() for step in others.grid}
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache / "alone"))
    Kept(others).ensure()
    assert all(equal(weights, Kept(others).module(step).state_dict()) for step, weights in found.items())


def test_a_run_that_was_killed_between_states_is_not_believed_beyond_them(monkeypatch):
    recipe, _ = asked(SMALL)
    monkeypatch.setattr(checkpoints, "_OFTEN", 0.0)
    Kept(recipe).ensure(6)
    card = Kept(recipe).folder / "card.json"
    before = card.read_bytes()
    Kept(recipe).ensure(12)
    last = Kept(recipe).module(12).state_dict()
    (Kept(recipe).folder / "step-000012.safetensors").write_bytes(b"half")
    card.write_bytes(before)  # what a killed process leaves: files that no card names; and state of a later step
    Kept(recipe).ensure(12)
    assert equal(last, Kept(recipe).module(12).state_dict())


class Killed(BaseException):
    """Behind it nothing is written any more, as behind kill -9."""


@pytest.mark.slow  # seventeen trainings, twice; the one above holds the instant that matters most
def test_killed_before_any_file_the_same_again_ends_in_the_same_bytes(cache, monkeypatch):
    recipe, _ = asked(SMALL)
    monkeypatch.setattr(checkpoints, "_OFTEN", 0.0)  # a state and a card behind every kept step
    write, left = checkpoints.write_whole, [10**9]

    def until(path, content):
        left[0] -= 1
        if left[0] < 0:
            raise Killed
        return write(path, content)

    def files(folder):
        return {file.name: file.read_bytes() for file in folder.iterdir() if file.suffix in (".json", ".safetensors")}

    monkeypatch.setattr(checkpoints, "write_whole", until)
    Kept(recipe).ensure()
    whole, writes = files(Kept(recipe).folder), 10**9 - left[0]
    assert writes > 10
    for kept in range(writes):
        monkeypatch.setenv("WORKBENCH_CACHE", str(cache / str(kept)))
        left[0] = kept
        with pytest.raises(Killed):
            Kept(recipe).ensure()
        left[0] = 10**9
        Kept(recipe).ensure()
        assert files(Kept(recipe).folder) == whole, kept


def test_a_toy_in_a_cache_that_can_only_be_read_is_used(monkeypatch):
    first = weights(SMALL)
    monkeypatch.setattr(checkpoints.kept, "alone", lambda *_: pytest.fail("a lock was asked for"))
    assert equal(first, weights(SMALL))


@pytest.mark.parametrize("change", ["loss", "measures", "step"])
def test_a_changed_card_is_not_believed_and_its_toy_is_trained_anew(change):
    """Timelines and findings draw the losses of the card: they are kept as the weights are."""
    first = weights(SMALL)
    recipe, _ = asked(SMALL)
    found, file = Kept(recipe).loss(12), Kept(recipe).folder / "card.json"
    card = json.loads(file.read_text())
    record = card["steps"]["12"]
    if change == "loss":
        record["loss"] /= 2
    elif change == "measures":
        record["measures"] = {name: value + 0.5 for name, value in record["measures"].items()}
    else:
        card["steps"]["12"], card["steps"]["6"] = card["steps"]["6"], card["steps"]["12"]
    file.write_text(json.dumps(card))
    assert Kept(recipe).card == {}
    assert equal(first, weights(SMALL)) and Kept(recipe).loss(12) == found


def test_what_is_damaged_is_trained_anew():
    first = weights(SMALL)
    recipe, _ = asked(SMALL)
    file = Kept(recipe).folder / "step-000012.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.warns(Note, match=f"{name_of(recipe)} .*made anew"):
        assert equal(first, weights(SMALL))


def test_a_damaged_card_is_told_to_who_follows():
    weights(SMALL)
    recipe, _ = asked(SMALL)
    card = Kept(recipe).folder / "card.json"
    card.write_bytes(card.read_bytes().replace(b"loss", b"lass", 1))
    said = []
    Kept(recipe).ensure(progress=lambda stage, share, text: said.append((stage, text)))
    assert [text for stage, text in said if stage == "note" and name_of(recipe) in text and "made anew" in text]


def test_who_watches_changes_nothing_and_is_given_copies(cache, monkeypatch):
    free = weights(SMALL)
    monkeypatch.setenv("WORKBENCH_CACHE", str(cache / "watched"))
    recipe, _ = asked(SMALL)

    def spoil(step, module, found):
        torch.rand(100)
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()

    Kept(recipe).ensure(seen=spoil)
    assert equal(free, Kept(recipe).module(12).state_dict())


def test_the_card_says_how_it_was_made_and_the_loss_is_that_of_the_weights():
    weights(SMALL)
    recipe, _ = asked(SMALL)
    card = json.loads((Kept(recipe).folder / "card.json").read_text())
    assert card["recipe"]["seed"] == 0 and card["recipe"]["task"] == "induction" and "torch" in card["made_with"]
    assert [int(step) for step in card["steps"]] == list(recipe.grid)
    model = load(SMALL, step=9)
    again = evaluated(model, recipe)
    assert again.loss == pytest.approx(card["steps"]["9"]["loss"], abs=1e-6)
    batch = recipe.task.evaluation(64)
    with torch.no_grad():
        plain = torch.nn.functional.cross_entropy(
            model.adapter.forward(batch.tokens).flatten(0, 1), batch.targets.flatten()
        )
    assert float(plain) == pytest.approx(again.loss, abs=1e-6)


def test_a_diverged_run_stops_says_where_and_keeps_what_is_finite():
    name = SMALL.removesuffix(",every=3") + ",optimiser=sgd,lr=1e9,every=1"
    recipe, _ = asked(name)
    with pytest.raises(DivergedError, match=r"diverged: the loss at step \d+ is no number") as first:
        Kept(recipe).ensure()
    kept = Kept(recipe).steps()
    assert set(kept) == set(range(first.value.step)) and all(
        record["loss"] == record["loss"] for record in kept.values()
    )
    with pytest.raises(DivergedError, match=f"step {first.value.step} is no number"):
        load(name)
    assert load(name, step=0).sizes.d_model == 16


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("toy:inductoin", "toy:induction"),
        ("toy:induction,heads=4", "n_heads"),
        ("toy:induction,n_heads=four", "whole number"),
        ("toy:induction,n_heads=0", "at least 1"),
        ("toy:induction,step=7777", "0, 1, 2, 3"),
        ("toy:induction,step=-1", "from 0"),
        ("toy:induction,seed", "seed=1"),
        ("toy:induction,lr=nan", r"^Got lr=nan; expected a number above 0\."),
        ("toy:exemplars,weight_decay=-0.1", r"^Got weight_decay=-0.1; expected a number from 0\."),
        ("toy:scan-snap,momentum=1", r"^Got momentum=1.0; expected a number from 0, below 1\."),
        ("toy:automata,batch=0", r"^Got batch=0; expected from 1 to 100000\."),
        ("toy:induction,seed=-3", r"^Got seed=-3; expected from 0"),
        ("toy:induction,seed=18446744073709551616", r"^Got seed=18446744073709551616; expected from 0"),
        ("toy:induction,lr=1e-3,lr=1e-4", "says lr twice"),
        ("toy:automata,n_heads=21", "n_heads=21 of d_model=64, whose d_head would be 3; expected an even"),
        ("toy:exemplars,d_model=1000000", "about 8e.12 weights; expected a toy"),
        ("toy:induction,optimiser=lion", "adamw, sgd"),
        ("toy:induction,positions=absolute", "learned, rotary, none"),
        ("toy:induction,clamp=L5H0 previous-token", "2 layers"),
        ("toy:induction,clamp=previous-token", "a head and one of"),
        ("toy:induction,clamp=L0H0 match", "induction"),
        ("toy:exemplars,clamp=L0 previous-input", "behind layer 0"),
        ("toy:exemplars,horizon=2", "a target at each position"),
    ],
)
def test_names_that_ask_for_what_is_not_there_are_refused(name, said):
    with pytest.raises(InputError, match=said):
        load(name)


def test_a_step_or_a_seed_is_of_a_toy_alone_and_said_once():
    with pytest.raises(InputError, match="a toy that is trained"):
        load("toy-induction", step=3)
    with pytest.raises(InputError, match="one seed"):
        load("toy:induction,seed=1", seed=2)


@pytest.mark.parametrize("name", ["toy:exemplars,n_heads=2", "toy:induction,clamp=L0H0 previous-token,seed=4", SMALL])
def test_a_name_is_that_of_its_recipe(name):
    recipe, step = asked(name)
    assert asked(name_of(recipe, step)) == (recipe, step)
    assert asked(name_of(recipe, 0)).step == 0


def test_all_that_is_set_is_in_the_key_and_when_to_look_is_not():
    base = RECIPES["exemplars"]
    settings = {
        "n_heads": 2, "lr": 1e-4, "attention": "relu", "clamp": "L1H0 match", "seed": 1, "labels": 6, "norm": "rms",
        "biases": True, "optimiser": "sgd", "batch": 16, "weight_decay": 0.1, "positions": "learned", "d_mlp": 8,
    }  # fmt: skip
    keys = {base.with_settings({name: value}).key for name, value in settings.items()} | {base.key}
    assert len(keys) == len(settings) + 1
    assert base.with_settings({"steps": 50, "every": 7}).key == base.key


VARIANTS = [
    "attention=relu", "positions=learned,biases=true", "positions=none,norm=rms", "norm=none,n_heads=4",
    "d_mlp=24,biases=true,n_layers=3",
]  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_passes_the_self_check_and_trains_in_training_mode_as_it_is_seen(variant):
    """What attention computes when nobody watches equals what is seen, to rounding. Rows of ReLU attention sum to
    anything: that item says so, and what relies on it refuses."""
    name = f"{SMALL},{variant},step=3"
    model = load(name)
    failed = [item.name for item in model.selfcheck.items if not item.passed]
    assert failed == ([ROWS] if "relu" in variant else [])
    module = Kept(asked(name).recipe).module(3)
    tokens = asked(name).recipe.task.evaluation(4).tokens
    seen, fast = module(tokens), module.train()(tokens)
    assert torch.allclose(seen, fast, atol=1e-4)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_a_clamp_leaves_exactly_what_it_clamps(decay):
    """Queries and keys of the told head stay as they were drawn, also under weight decay; the rest moves."""
    recipe, _ = asked(f"{SMALL},n_heads=2,clamp=L0H1 previous-token,weight_decay={decay}")
    run = Training(recipe)
    before = {name: value.clone() for name, value in run.module.state_dict().items()}
    for _ in range(5):
        run.advance()
    after = run.module.state_dict()
    for matrix in ("W_Q", "W_K"):
        name = f"blocks.0.{matrix}"
        assert torch.equal(after[name][1], before[name][1]) and not torch.equal(after[name][0], before[name][0])
    assert not torch.equal(after["blocks.0.W_V"][1], before["blocks.0.W_V"][1])
    batch = recipe.task.evaluation(4)
    seen = []
    with hooks(run.model, held(run.clamps, recipe.task, batch)):
        run.module.blocks[0].points["pattern"].add_hook(lambda pattern, hook: seen.append(pattern.detach()))
        run.module(batch.tokens)
    pattern = seen[-1][:, 1]
    assert torch.equal(pattern.argmax(-1)[:, 1:], torch.arange(15).expand(4, -1)) and (pattern.amax(-1) == 1).all()


def test_attend_tells_a_head_of_any_model_where_to_look():
    from tests.tiny_models import tiny_model

    model = tiny_model("llama")
    need = Need((PATTERN,), keep, dims="head query key")
    for to, expected in (("previous-token", [0, 0, 1, 2]), ("first-token", [0] * 4), ("own-token", [0, 1, 2, 3])):
        found = observe(model, [5, 6, 7, 8], [need], interventions=[Attend(Head(1, 2), to)]).array(need)
        rows = found.values[1, 0] if found.values.ndim == 5 else found.values[1]
        assert rows[2].argmax(-1).tolist() == expected and rows[2].max(-1).tolist() == [1.0] * 4
        assert rows[1].max(-1)[-1] < 1
    part = Attend(Head(1, 2), torch.tensor([-1, -1, 0, -1]))
    found = observe(model, [5, 6, 7, 8], [need], interventions=[part]).array(need).values
    free = observe(model, [5, 6, 7, 8], [need]).array(need).values
    changed = (found != free).any(-1)
    assert changed[1][..., 2, 2].all() and changed.sum() == 1
    told = torch.tensor([[0, 1, 1, 1], [0, 0, 2, 0], [0, 1, 0, 3]])  # keys of each prompt, also where passes are split
    prompts = [[5, 6, 7, 8], [9, 5, 6, 7], [8, 8, 5, 6]]
    for batch_tokens in (64, 8, 4):
        by_row = observe(model, prompts, [need], interventions=[Attend(Head(1, 2), told)], batch_tokens=batch_tokens)
        patterns = by_row.array(need).isel(layer=1, head=2).transpose("prompt", "query", "key").values
        assert patterns.argmax(-1).tolist() == told.tolist() and (patterns.max(-1) == 1).all()
    for bad in (
        Attend(Head(9, 0), "own-token"),
        Attend(Head(1, 2), "next-token"),
        Attend(Head(1, 2), torch.tensor([3, 0, 0, 0])),
    ):
        with pytest.raises(InputError):
            observe(model, [5, 6, 7, 8], interventions=[bad])


@pytest.mark.parametrize("clamp", ["L1 previous-input", "L1H0 match", "L1H0 copy", "L1 previous-input + L1H0 copy"])
def test_subcircuits_of_the_exemplar_task_are_held(clamp):
    """By what they are for: with match held, the query's row is on its label; with copy, the logits are two scores."""
    recipe, _ = asked(f"toy:exemplars,clamp={clamp}")
    run = Training(recipe)
    batch = recipe.task.evaluation(16)
    with hooks(run.model, held(run.clamps, recipe.task, batch)), torch.no_grad():
        logits = run.module(batch.tokens, last=True)[:, -1]
    if "copy" in clamp:
        there = torch.zeros_like(logits, dtype=torch.bool).scatter(1, batch.tokens[:, [1, 3]], True)
        assert (logits[~there] == -1e9).all() and (logits[there].abs() < 100).all()
    before = [run.advance() for _ in range(3)]
    assert all(0 < loss < 5 for loss in before)
    if clamp == "L1 previous-input":
        # the key of a label is that of its item, but for its own rotation: the match is exact at the start already
        block = run.module.blocks[1]
        keys = []
        with hooks(run.model, held(run.clamps, recipe.task, batch)), torch.no_grad():
            block.points["k"].add_hook(lambda k, hook: keys.append(k))
            run.module(batch.tokens)
        assert torch.allclose(keys[-1][:, 1], keys[-1][:, 0]) and torch.allclose(keys[-1][:, 3], keys[-1][:, 2])


def test_a_full_disk_or_no_permission_is_a_sentence(cache, monkeypatch):
    (cache / "toys").write_text("a file in the way")
    with pytest.raises((UnavailableError, InputError)):
        load(SMALL)
