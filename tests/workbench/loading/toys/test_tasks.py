"""Tasks: what their generators promise, and oracles held against independent computation."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from workbench.errors import InputError
from workbench.loading.toys.recipes import RECIPES
from workbench.loading.toys.tasks.automata import Automata
from workbench.loading.toys.tasks.bigram_backcopy import BOS, BigramBackcopy
from workbench.loading.toys.tasks.exemplars import Exemplars
from workbench.loading.toys.tasks.gaussian_classes import GaussianClasses
from workbench.loading.toys.tasks.induction import Induction
from workbench.loading.toys.tasks.scan_snap import ScanSnap
from workbench.models import prompt

TASKS = {name: recipe.task for name, recipe in RECIPES.items()}


def entropy_loss(task, batch):
    """The oracle's mean loss on the targets there are."""
    found = task.oracle(batch).gather(-1, batch.targets.clamp(min=0)[..., None])[..., 0]
    return float(-found[batch.targets >= 0].log().mean())


@pytest.mark.parametrize("name", TASKS)
def test_batches_follow_from_the_seed_and_step_alone_and_seeds_share_none(name):
    task = TASKS[name]
    first, again = (task.batch(3, 32, 2, 8) for _ in range(2))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(first, again, strict=True))
    rows = {tuple(row) for batch in first for row in batch.tokens.tolist()}
    others = [task.batch(4, 32, 2, 8), task.batch(3, 64, 2, 8), [task.evaluation(64)]]
    for batches in others:
        shared = rows & {tuple(row) for batch in batches for row in batch.tokens.tolist()}
        assert len(shared) <= (1 if name == "exemplars" else 0)  # 80,000 sequences in all: two draws may meet
    assert first[0].tokens.min() >= 0 and first[0].tokens.max() < task.d_vocab
    assert first[0].tokens.shape == (8, task.n_ctx)


@pytest.mark.parametrize("name", TASKS)
def test_the_oracle_is_a_distribution_that_no_other_prediction_beats(name):
    """Where there is a target it sums to 1. Its mean loss is below that of any mixture with the uniform, and below
    itself tempered: cross-entropy is least at the truth. 2000 sequences, so that chance does not turn the order."""
    task = TASKS[name]
    batch = task.draw(np.random.default_rng(0), 2000)
    there = batch.targets >= 0
    oracle = task.oracle(batch)[there]
    assert torch.allclose(oracle.sum(-1), torch.ones(len(oracle)), atol=1e-5)
    at = oracle.gather(-1, batch.targets[there][:, None])[:, 0]
    assert (at > 0).all()
    best = -at.log().mean()
    mixed = 0.9 * oracle + 0.1 * oracle.new_tensor(1 / task.d_vocab)
    assert best <= -mixed.gather(-1, batch.targets[there][:, None]).log().mean() + 1e-6
    for power in (0.8, 1.25):
        tempered = oracle**power / (oracle**power).sum(-1, keepdim=True)
        assert best <= -tempered.gather(-1, batch.targets[there][:, None]).log().mean() + 1e-6


def test_backcopy_follows_the_table_and_never_has_two_triggers_in_a_row():
    """Shares within four standard errors of what the table says; 128,000 characters."""
    task = BigramBackcopy(n_triggers=4, characters=40)
    batch = task.draw(np.random.default_rng(1), 2000)
    tokens = torch.cat([batch.tokens, batch.targets[:, -1:]], 1)
    trigger = task.is_trigger(tokens)
    assert not (trigger[:, 1:] & trigger[:, :-1]).any() and not trigger[:, 1].any()
    assert (tokens[:, 0] == BOS).all() and (tokens[:, 1:] != BOS).all()
    after = trigger[:, 1:-1]
    assert torch.equal(tokens[:, 2:][after], tokens[:, :-2][after])
    assert 0.1 < trigger[:, 2:].float().mean() < 0.5
    pairs = torch.zeros(task.d_vocab, task.d_vocab)
    plain = ~trigger[:, :-1]
    pairs.index_put_((tokens[:, :-1][plain], tokens[:, 1:][plain]), torch.ones(int(plain.sum())), accumulate=True)
    table = torch.from_numpy(task.transitions).float()
    for token in range(task.n_triggers + 1, task.d_vocab, 7):
        n = pairs[token].sum()
        spread = (table[token] * (1 - table[token]) / n).sqrt() * 4 + 4 / n
        assert ((pairs[token] / n - table[token]).abs() <= spread).all()


def test_backcopy_oracle_loss_is_the_entropy_of_the_table():
    """Computed from the table alone: entropies of rows, weighted by how often they are met; 0 behind triggers."""
    task = BigramBackcopy()
    batch = task.draw(np.random.default_rng(2), 1000)
    table = task.transitions
    rows = -np.where(table > 0, table * np.log(np.where(table > 0, table, 1)), 0).sum(-1)
    expected = np.where(task.is_trigger(batch.tokens.numpy()), 0.0, rows[batch.tokens.numpy()]).mean()
    assert entropy_loss(task, batch) == pytest.approx(expected, abs=0.01)  # 64,000 draws around their expectation
    known = "".join(task.alphabet[i - 1] for i in range(1, 4))
    assert known.startswith(" e") and len(set(task.alphabet)) == 64


def test_induction_repeats_and_the_oracle_knows_it():
    task = Induction(tokens=40, length=32)
    batch = task.draw(np.random.default_rng(3), 400)
    period = batch.fields["period"]
    assert period.min() == 8 and period.max() == 16
    for row, p in zip(torch.cat([batch.tokens, batch.targets[:, -1:]], 1).tolist(), period.tolist(), strict=True):
        assert row[0] == 0 and len(set(row[1 : 1 + p])) == p and row[1 + p :] == row[1 : len(row) - p]
    # by hand: position 5 has seen 5 tokens of 40 and cannot be the end; position 8 ends with probability 1/9
    oracle = task.oracle(batch)
    fresh = [i for i in range(1, 41) if i not in batch.tokens[0, 1:6].tolist()]
    assert torch.allclose(oracle[0, 5, fresh], torch.full((35,), 1 / 35))
    longer = int((period > 8).nonzero()[0])
    assert float(oracle[longer, 8, batch.tokens[longer, 1]]) == pytest.approx(1 / 9)
    keys = task.keys("induction", batch)
    row, query = [int(x[0]) for x in (keys >= 0).nonzero(as_tuple=True)]
    assert batch.tokens[row, keys[row, query]] == batch.targets[row, query]


def test_held_out_classes_and_pairs_never_occur_in_training_in_either_order():
    task = Exemplars(classes=12, labels=6, held_out_pairs=4)
    seen = task.draw(np.random.default_rng(4), 20_000)
    held = {frozenset(pair) for pair in task.pairs("new_pairs").tolist()}
    dealt = {frozenset(pair) for pair in seen.tokens[:, [1, 3]].tolist()}
    assert not dealt & held and len(dealt) == 15 - 4
    new = task.draw(np.random.default_rng(4), 1000, "new_classes")
    assert not set(seen.tokens[:, ::2].flatten().tolist()) & set(new.tokens[:, ::2].flatten().tolist())
    pairs = task.draw(np.random.default_rng(4), 1000, "new_pairs")
    assert {frozenset(pair) for pair in pairs.tokens[:, [1, 3]].tolist()} == held
    ordered = {tuple(pair) for pair in seen.tokens[:, [1, 3]].tolist()}
    assert len(ordered) == 22, "each pair in both orders"
    assert torch.equal(seen.tokens.gather(1, task.keys("match", seen)[:, -1:])[:, 0], seen.targets[:, -1])


def test_gaussian_classes_are_as_their_parameters_say():
    task = GaussianClasses(classes=32, labels=8, burstiness=3, bursty=0.5, zipf=1.0)
    batch = task.draw(np.random.default_rng(5), 4000)
    copies = batch.fields["match"].sum(1)
    assert 0.45 < (copies >= 3).float().mean() < 0.6  # half are bursts; a few others meet their class by chance
    classes = (batch.tokens[:, -1] - task.labels) // task.exemplars
    counts = torch.bincount(classes, minlength=32).float()
    weights = 1 / torch.arange(1, 33)
    assert torch.allclose(counts / 4000, weights / weights.sum(), atol=0.03)
    items = {split: task.draw(np.random.default_rng(6), 2000, split) for split in task.splits}
    trained = set(items["train"].tokens[:, ::2].flatten().tolist())
    for split in ("in_context", "swapped", "in_weights"):
        assert not trained & set(items[split].tokens[:, ::2].flatten().tolist()), "held-out exemplars"
    assert not items["in_weights"].fields["match"].any() and items["in_context"].fields["match"].any(1).all()
    own = torch.from_numpy(task.label_of(((items["swapped"].tokens[:, -1] - 8) // 8).numpy()))
    assert (own != items["swapped"].targets[:, -1]).all()
    for split in ("in_context", "swapped", "train"):
        match = task.keys("match", items[split])[:, -1]
        told = match >= 0
        where = match.clamp(min=0)[:, None]
        assert torch.equal(items[split].tokens.gather(1, where)[told, 0], items[split].targets[told, -1])


def test_automata_go_by_their_states():
    """What comes is possible, and as likely as the truth says: mean loss equals mean entropy."""
    task = Automata(symbols=5, states=3, edges=3)
    batch = task.draw(np.random.default_rng(7), 1500)
    truth = batch.fields["truth"]
    assert (truth.gather(-1, batch.targets[..., None]) > 0).all()
    entropy = float(torch.special.entr(truth).sum(-1).mean())
    assert entropy_loss(task, batch) == pytest.approx(entropy, abs=0.01)  # 144,000 draws
    assert (batch.targets[batch.tokens == 0] != 0).all(), "no empty string"
    assert (truth[..., 1:] > 0).sum(-1).max() <= 3


def test_scan_snap_tells_the_class_by_distinct_tokens_alone():
    task = ScanSnap(classes=6, distinct=3)
    batch = task.draw(np.random.default_rng(8), 3000)
    context = batch.tokens[:, :-1]
    is_distinct = context >= task.first_distinct
    kind = (context - task.first_distinct) // task.distinct
    target = batch.targets[:, -1:]
    assert (kind == target)[is_distinct].all() and is_distinct.any(1).all()
    assert float((~is_distinct).float().mean()) == pytest.approx(0.6 * 30 / 31, abs=0.01)
    common = torch.stack(
        [torch.bincount(context[(target == k)[:, 0]].flatten(), minlength=task.d_vocab) for k in range(6)]
    )
    shares = common[:, task.first_common : task.first_distinct].float()
    assert torch.allclose(shares / shares.sum(-1, keepdim=True), torch.full_like(shares, 1 / 8), atol=0.03)


@pytest.mark.parametrize(
    "make",
    [lambda: BigramBackcopy(n_triggers=0), lambda: Induction(tokens=5), lambda: Exemplars(held_out_pairs=10),
     lambda: GaussianClasses(burstiness=9), lambda: Automata(edges=30), lambda: ScanSnap(classes=3)],
)  # fmt: skip
def test_tasks_that_cannot_be_are_refused(make):
    with pytest.raises(InputError, match="expected"):
        make()


@pytest.mark.parametrize("name", TASKS)
def test_tokenizers_write_and_read_every_sequence(name):
    task = TASKS[name]
    tokenizer = task.tokenizer()
    if tokenizer is None:
        assert name == "induction"
        return
    row = task.draw(np.random.default_rng(9), 1).tokens[0].tolist()
    joint = "" if name in ("bigram-backcopy", "automata") else " "
    text = joint.join(tokenizer.convert_ids_to_tokens(row))
    assert tokenizer.encode(text.removeprefix("<s>"), add_special_tokens=False) == row[name == "bigram-backcopy" :]


def test_a_word_that_a_toy_does_not_know_is_refused_and_not_taken_for_another():
    tokenizer = TASKS["exemplars"].tokenizer()
    reads = SimpleNamespace(tokenizer=tokenizer, name="toy:exemplars", vocabulary=SimpleNamespace(front=()))
    known = tokenizer.get_vocab()
    assert prompt._encoded(reads, "x0 x1  x0") == (known["x0"], known["x1"], known["x0"])
    with pytest.raises(InputError, match="the word 'x0x', which toy:exemplars does not know"):
        prompt._encoded(reads, "x0 x0x x1")
