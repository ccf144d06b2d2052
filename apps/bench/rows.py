"""The table's rows: which pass or study is measured, and at which sizes."""

from typing import NamedTuple

from apps.bench.batches import HEADS, ROUTES, gone_on, needs_alone, surveyed, written_down
from apps.bench.passes import after, bare, bridge, capture, everything, half, products
from apps.bench.processes import PROMPT, command, plain
from apps.bench.studies import (
    FULL_PASSES,
    ablations_from_layers,
    ablations_in_full,
    check_of_a_head,
    edges_ranked,
    patches_from_layers,
    patches_in_full,
)
from apps.bench.subject import Prepare, Subject
from apps.bench.toys import STEPS, looked_at, plain_steps, toy_steps

__all__ = ["BARE", "BRIDGE", "QUICK_SIZES", "ROWS", "SIZES", "STARTS", "START_SIZE", "STUDY_SIZES", "Row"]

SIZES = ((1, 64), (1, 256), (1, 1024), (16, 128))
QUICK_SIZES = ((1, 64), (1, 256))
STUDY_SIZES = ((1, 16), (1, 32))  # of studies of short prompts, which are measured there beside a bare forward only
START_SIZE = (1, 6)  # the prompt of the first answer in the shell

BARE, BRIDGE = "Hugging Face sdpa forward", "bridge forward"
INDUCTION, LENS, PRODUCTS = "induction-heads: needs", "logit-lens: after the pass", "logit-lens: its products alone"
LENS_ALL, PRODUCTS_ALL = f"{LENS}, all positions", f"{PRODUCTS}, all positions"
ABLATIONS, FULL_ABLATIONS = "ablation: 30 heads, from their layers", f"ablation: {FULL_PASSES} heads, full passes"
PATCHES, FULL_PATCHES = "patching: 270 heads, from their layers", f"patching: {FULL_PASSES} heads, full passes"
CHECK = "causal check: a head, 50 controls"
EDGES = "EAP: every edge, one pair"
TOY, PLAIN_TOY = f"toy: {STEPS} training steps", f"toy: {STEPS} steps of a plain PyTorch loop"
LOOK = "toy: a checkpoint looked at"
BATCH, BATCH_ROUTES = "batch: induction, sinks and erasure", "batch: the same with routes"
BATCH_NEEDS, BATCH_WRITES, BATCH_RESUMES = "batch: its pass alone", "batch: writing it", "batch: going on"
ANSWER, PLAIN_ANSWER = "process: workbench run logit-lens", "process: plain Hugging Face, the same prompt"
HELP, LIST, DESCRIBE = (f"process: workbench {words}" for words in ("--help", "list", "describe logit-lens"))


class Row(NamedTuple):
    """One line of the table.

    prepare: `(subject) ->` a callable without arguments, which is what is timed. heavy: takes many forward passes, so
    that it runs in fewer rounds. most: the most prompts it is measured with. at: the (batch, length) of a study, which
    is measured nowhere else and runs once, without a warm-up and without its peak.
    """

    name: str
    prepare: Prepare
    heavy: bool = False
    most: int = 16
    at: tuple[int, int] | None = None

    def fits(self, subject: Subject) -> bool:
        """Whether it is measured at this size."""
        size = len(subject.tokens), len(subject.tokens[0])
        if self.at is None:
            return size[0] <= self.most and (size not in STUDY_SIZES or self.name in (BARE, BRIDGE))
        return size == self.at


ROWS = (
    Row(BARE, bare),
    Row(BRIDGE, bridge),
    Row("observe, no needs", capture()),
    Row(INDUCTION, capture("induction-heads", fields=half)),
    Row("induction-on-prompt: needs", capture("induction-on-prompt")),
    Row("logit-lens: capture", capture("logit-lens")),
    Row("logit-lens: capture, all positions", capture("logit-lens", positions="all")),
    Row(LENS, after("logit-lens"), heavy=True),
    Row(PRODUCTS, products("logit-lens"), heavy=True),
    Row(LENS_ALL, after("logit-lens", positions="all"), heavy=True, most=1),
    Row(PRODUCTS_ALL, products("logit-lens", positions="all"), heavy=True, most=1),
    Row("flow-routes: needs", capture("flow-routes"), heavy=True),
    Row("attention-sinks: needs", capture("attention-sinks")),
    Row("everything together", everything, heavy=True),
    Row(ABLATIONS, ablations_from_layers, at=(16, 128)),
    Row(FULL_ABLATIONS, ablations_in_full, at=(16, 128)),
    Row(PATCHES, patches_from_layers, at=(1, 16)),
    Row(FULL_PATCHES, patches_in_full, at=(1, 16)),
    Row(CHECK, check_of_a_head, at=(1, 32)),
    Row(EDGES, edges_ranked, at=(1, 16)),
    Row(BATCH, surveyed(*HEADS), at=(16, 128)),
    Row(BATCH_ROUTES, surveyed(*ROUTES), at=(16, 128)),
    Row(BATCH_NEEDS, needs_alone(*HEADS), at=(16, 128)),
    Row(BATCH_WRITES, written_down(*HEADS), at=(16, 128)),
    Row(BATCH_RESUMES, gone_on(*HEADS), at=(16, 128)),
    Row(PLAIN_TOY, plain_steps, at=(1, 16)),
    Row(TOY, toy_steps, at=(1, 16)),
    Row(LOOK, looked_at, at=(1, 16)),
)

# Whole processes, each started five times in turn beside bare passes of the prompt, after one to warm up.
STARTS = (
    *ROWS[:2],
    Row(PLAIN_ANSWER, plain, heavy=True),
    Row(ANSWER, command("run", "logit-lens", "--prompt", PROMPT), heavy=True),
    Row(HELP, command("--help"), heavy=True),
    Row(LIST, command("list"), heavy=True),
    Row(DESCRIBE, command("describe", "logit-lens"), heavy=True),
)
