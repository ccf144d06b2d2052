"""What our passes cost, against a bare Hugging Face `sdpa` forward of the same tokens: one table, saved as JSON.

Rows of one size run in turn, in an order that rotates from round to round, so that whatever else the machine does falls
on all of them alike. Times are medians over rounds; a ratio is the median of the ratios within each round. The tokens
are natural text (the topics of Python's own `help()`): scores and the lens do not depend on them, caches may.

Peak memory is how far the process's resident set rose during one more run, by the kernel's own high-water mark (Linux;
elsewhere it is left out), after giving back what the allocator held.

A further row is one line in `ROWS`. A study of many passes is a line with `at`: it is measured at that one size, once,
and its goal names its own slow route (`bench_studies`) or a single pass, and how many of those it replaces.
"""

import ctypes
import gc
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import torch

from apps.bench_studies import (
    FULL_PASSES,
    ablations_from_layers,
    ablations_in_full,
    check_of_a_head,
    patches_from_layers,
    patches_in_full,
)
from probes import CATALOG
from workbench.catalog import finish, pass_for
from workbench.errors import UnavailableError
from workbench.models import bundled
from workbench.models.model import Model
from workbench.observation import observe
from workbench.processor import this_processor
from workbench.prompt import Prompt, Tokens, tokenise

__all__ = ["GOALS", "ROWS", "Goal", "Row", "Subject", "bench", "default_out", "measure"]

SIZES = ((1, 64), (1, 256), (1, 1024), (16, 128))
QUICK_SIZES = ((1, 64), (1, 256))
STUDY_SIZES = ((1, 16), (1, 32))  # of studies of short prompts, which are measured there beside a bare forward only
ROUNDS, FEW_ROUNDS = (11, 3), (5, 2)  # of light and of heavy rows; few where a pass takes seconds
_LONG = 1024  # tokens in all from which it does

BARE, BRIDGE = "Hugging Face sdpa forward", "bridge forward"
INDUCTION, LENS, PRODUCTS = "induction-heads: needs", "logit-lens: after the pass", "logit-lens: its products alone"
LENS_ALL, PRODUCTS_ALL = f"{LENS}, all positions", f"{PRODUCTS}, all positions"
ABLATIONS, FULL_ABLATIONS = "ablation: 30 heads, from their layers", f"ablation: {FULL_PASSES} heads, full passes"
PATCHES, FULL_PATCHES = "patching: 270 heads, from their layers", f"patching: {FULL_PASSES} heads, full passes"
CHECK = "causal check: a head, 50 controls"


@dataclass(frozen=True, eq=False)
class Subject:
    """What one size is measured on: our model, a bare Hugging Face one of the same weights, and the same tokens."""

    model: Model
    bare: Any
    tokens: tuple[Tokens, ...]

    @property
    def ids(self) -> torch.Tensor:
        """`[batch, pos]`."""
        return torch.tensor([t.ids for t in self.tokens])


class Row(NamedTuple):
    """One line of the table. prepare: `(subject) ->` a callable without arguments, which is what is timed. heavy: takes
    many forward passes, so that it runs in fewer rounds. most: the most prompts it is measured with. at: the (batch,
    length) of a study, which is measured nowhere else and runs once, without a warm-up and without its peak."""

    name: str
    prepare: Callable[[Subject], Callable[[], Any]]
    heavy: bool = False
    most: int = 16
    at: tuple[int, int] | None = None

    def fits(self, subject: Subject) -> bool:
        """Whether it is measured at this size."""
        size = len(subject.tokens), len(subject.tokens[0])
        if self.at is None:
            return size[0] <= self.most and (size not in STUDY_SIZES or self.name in (BARE, BRIDGE))
        return size == self.at


# --- rows -------------------------------------------------------------------------------------------------------------


def bare(subject: Subject) -> Callable[[], Any]:
    """The model as a user of transformers runs it."""
    ids = subject.ids

    @torch.no_grad()
    def forward():
        return subject.bare(ids, use_cache=False).logits

    return forward


def bridge(subject: Subject) -> Callable[[], Any]:
    """The instrumented model (eager attention, hook points) with nothing watching."""
    ids = subject.ids

    @torch.no_grad()
    def forward():
        with subject.model.lock:
            return subject.model.adapter.forward(ids)

    return forward


def capture(*names: str, fields: Callable[[Subject], dict] | None = None, **params: Any):
    """One observed pass with the needs of the named entries; fields: what their reducers expect from a stimulus."""

    def prepare(subject: Subject) -> Callable[[], Any]:
        needs = [need for name in names for need in _needs(subject, name, params)]
        extra = fields(subject) if fields else {}
        return lambda: observe(subject.model, subject.tokens, needs, fields=extra)

    return prepare


def after(name: str, **params: Any):
    """What an entry does after the pass, for every prompt, from an observation that is already there."""

    def prepare(subject: Subject) -> Callable[[], Any]:
        entry, checked = CATALOG.get(name), CATALOG.get(name).checked(params)
        observation = observe(subject.model, subject.tokens, _needs(subject, name, params))
        parts = [observation.prompt(row) for row in range(len(subject.tokens))]
        return lambda: [entry.analyse(part, subject.model.readout, **checked) for part in parts]

    return prepare


def products(name: str, *, block: int = 128, **params: Any):
    """The unembedding products alone of an entry that keeps states `[layer, prompt, pos, d_model]`, in blocks."""

    def prepare(subject: Subject) -> Callable[[], Any]:
        needs = _needs(subject, name, params)
        observation = observe(subject.model, subject.tokens, needs)
        states = torch.cat([observation[need].flatten(0, -2) for need in needs])
        W_U = subject.model.readout.W_U.detach()

        def multiply():
            for rows in states.split(block):
                torch.nn.functional.linear(rows, W_U)

        return multiply

    return prepare


def everything(subject: Subject) -> Callable[[], Any]:
    """All prompt-scope entries from one shared pass, with what they do after it, for every prompt."""
    entries = [
        e for e in CATALOG if e.scope == "prompt" and e.refusal(subject.model) is None and e.ready(subject.model)
    ]
    checked = {e.name: e.checked({}) for e in entries}

    def run():
        observation = observe(
            subject.model, subject.tokens, **pass_for(entries, subject.model, subject.tokens[0], checked)
        )
        parts = [observation.prompt(row) for row in range(len(subject.tokens))]
        return [finish(entry, part, subject.model, checked[entry.name]) for part in parts for entry in entries]

    return run


def _needs(subject: Subject, name: str, params: dict[str, Any]):
    entry = CATALOG.get(name)
    tokens = subject.tokens[0] if entry.scope == "prompt" else subject.tokens
    return entry.needs(subject.model, tokens, **entry.checked(params))


def half(subject: Subject) -> dict[str, torch.Tensor]:
    """Fields of an induction stimulus whose period is half its length: the attention that is read, not its meaning."""
    period = torch.full((len(subject.tokens),), (len(subject.tokens[0]) - 1) // 2)
    return {"lag": period, "period": period}


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
)


class Goal(NamedTuple):
    """What we set out to reach: a row against another one, at most `limit` (a ratio of wall time, or MB above it).

    faster: at least `limit` times as fast instead. passes: how many runs of the other row it is held against.
    """

    row: str
    against: str
    limit: float
    megabytes: bool = False
    sizes: tuple[tuple[int, int], ...] = SIZES
    faster: bool = False
    passes: float = 1

    def __str__(self) -> str:
        against = self.against if self.passes == 1 else f"{self.passes:g} x {self.against}"
        limit = f"at least {self.limit:g} times as fast" if self.faster else f"at most {self.limit:g}"
        return f"{self.row} against {against}, {limit}" + (" MB above it" if self.megabytes else "")

    def of(self, ratio: float | None) -> float | None:
        """What is held against the limit, from the ratio of the two rows' times."""
        if ratio is None:
            return None
        return self.passes / ratio if self.faster else ratio / self.passes

    def met(self, measured: float) -> bool:
        """Whether it is reached."""
        return measured >= self.limit if self.faster else measured <= self.limit


GOALS = (
    Goal(INDUCTION, BRIDGE, 1.12),
    Goal(INDUCTION, BRIDGE, 600.0, megabytes=True, sizes=((1, 1024),)),
    Goal(LENS_ALL, PRODUCTS_ALL, 1.3),
    Goal(ABLATIONS, FULL_ABLATIONS, 1.4, faster=True, passes=30 / FULL_PASSES),
    Goal(PATCHES, FULL_PATCHES, 6, sizes=STUDY_SIZES, faster=True, passes=270 / FULL_PASSES),
    Goal(CHECK, BARE, 6, sizes=STUDY_SIZES, passes=50 / 10),
)


# --- measuring --------------------------------------------------------------------------------------------------------


def measure(
    subject: Subject, rows: Sequence[Row], rounds: tuple[int, int], progress: Callable[[float], None] = lambda _: None
) -> list[dict[str, Any]]:
    """Measure rows on one size. rounds: of light and of heavy rows.

    Returns one record per row: `wall_ms`, `cpu_ms` (medians), `wall_ms_runs`, `cpu_ms_runs` by round, `peak_mb`.
    """
    rows = [row for row in rows if row.fits(subject)]
    calls = {row.name: row.prepare(subject) for row in rows}
    peaks = dict.fromkeys(calls)
    for row in rows:
        if row.at is not None:
            continue
        if not row.heavy:
            calls[row.name]()  # a heavy row's run for its peak is warm-up enough
        peaks[row.name] = peak_megabytes(calls[row.name])
    wall: dict[str, list[float]] = {row.name: [] for row in rows}
    cpu: dict[str, list[float]] = {row.name: [] for row in rows}
    for i in range(rounds[0]):
        for row in [*rows[i % len(rows) :], *rows[: i % len(rows)]]:
            if i >= (1 if row.at else rounds[1] if row.heavy else rounds[0]):
                continue
            seconds = _timed(calls[row.name])
            wall[row.name].append(1e3 * seconds[0])
            cpu[row.name].append(1e3 * seconds[1])
        progress((i + 1) / rounds[0])
    return [
        {
            "row": row.name,
            "batch": len(subject.tokens),
            "length": len(subject.tokens[0]),
            "wall_ms": statistics.median(wall[row.name]),
            "cpu_ms": statistics.median(cpu[row.name]),
            "peak_mb": peaks[row.name],
            "wall_ms_runs": wall[row.name],
            "cpu_ms_runs": cpu[row.name],
        }
        for row in rows
    ]


def _timed(call: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds of one call; what it returns is let go inside, as a user's loop would."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def ratio(records: Sequence[dict], row: dict, against: str, what: str = "wall_ms") -> float | None:
    """Median over rounds of a row against another of the same size; None where that was not measured."""
    other = next((r for r in records if r["row"] == against and _size(r) == _size(row)), None)
    if other is None:
        return None
    pairs = zip(row[f"{what}_runs"], other[f"{what}_runs"], strict=False)  # heavy rows run in the first rounds only
    return statistics.median(mine / theirs for mine, theirs in pairs)


def _size(record: dict) -> tuple[int, int]:
    return record["batch"], record["length"]


def peak_megabytes(call: Callable[[], Any]) -> float | None:
    """How far the resident set rises above its level during one call, in MB; None where the kernel does not tell."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only: elsewhere the level holds what the allocator kept
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, the high-water mark
        level = _status("VmRSS")
        call()
        return (_status("VmHWM") - level) / 1e6
    except OSError:
        return None


def _status(name: str) -> int:
    """A memory figure of this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(f"{name}:")))


# --- subject ----------------------------------------------------------------------------------------------------------


def text() -> str:
    """Natural text that every machine has: the topics of Python's `help()`, in alphabetical order."""
    from pydoc_data.topics import topics

    return "\n".join(topics[name] for name in sorted(topics))


def rows_of_text(model: Model, batch: int, length: int) -> tuple[Tokens, ...]:
    """`batch` prompts of `length` tokens: BOS where there is one, then consecutive pieces of the text."""
    if model.tokenizer is None:
        ids, first = [i % model.sizes.d_vocab for i in range(batch * length)], []
    else:
        characters = 12 * batch * length  # far more than the tokens need: words are shorter than that
        ids = model.tokenizer.encode(text()[:characters], add_special_tokens=False)
        first = [] if model.tokenizer.bos_token_id is None else [model.tokenizer.bos_token_id]
    step = length - len(first)
    return tuple(tokenise(model, Prompt.ids([*first, *ids[i * step : (i + 1) * step]])) for i in range(batch))


def _models() -> tuple[Model, Any]:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    from workbench.models.loading import load

    logging.disable_progress_bar()
    model = load(bundled.NAME, device="cpu")
    where = bundled.path()
    other = AutoModelForCausalLM.from_pretrained(
        where, attn_implementation="sdpa", dtype=torch.float32, local_files_only=True
    )
    return model, other.eval()


def machine() -> dict[str, Any]:
    """What a reader must know of where the numbers come from."""
    from workbench.results import stamp

    names = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "OMP_PROC_BIND", "MKL_NUM_THREADS", "KMP_BLOCKTIME")
    names += ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "MKL_ENABLE_INSTRUCTIONS")  # each can forbid instructions
    return {
        **stamp(),
        "interop_threads": torch.get_num_interop_threads(),
        "environment": {name: os.environ.get(name) for name in names},
        "cpu": _cpu(),
        "instructions": {"text": str(this_processor()), **asdict(this_processor())},
        "cpu_count": os.cpu_count(),
        "platform": platform.platform(),
        "load_average": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


# --- the table --------------------------------------------------------------------------------------------------------


def default_out() -> str:
    """bench-20260131-1200.json, in the current directory."""
    return f"bench-{datetime.now():%Y%m%d-%H%M}.json"


def bench(
    out: str | Path, *, quick: bool = False, progress: Callable[[str, float, str], None] = lambda *_: None
) -> dict[str, Any]:
    """Measure everything on the default model, print the table and save it; returns what was saved."""
    progress("bench", 0.0, "loading the model twice")
    model, other = _models()
    record = {"machine": machine(), "model": vars(model.identity), "quick": quick, "rows": []}
    for batch, length in QUICK_SIZES if quick else (*SIZES, *STUDY_SIZES):
        rounds = FEW_ROUNDS if quick or batch * length >= _LONG else ROUNDS
        subject = Subject(model, other, rows_of_text(model, batch, length))
        report = lambda share, name=f"{batch} x {length}": progress("bench", share, f"measuring {name}")
        report(0.0)
        record["rows"] += measure(subject, ROWS, rounds, report)
    for row in record["rows"]:
        row["wall_ratio"] = ratio(record["rows"], row, BARE)
        row["cpu_ratio"] = ratio(record["rows"], row, BARE, "cpu_ms")
        row["wall_ratio_to_bridge"] = ratio(record["rows"], row, BRIDGE)
    record["goals"] = goals(record["rows"])
    record["load_average_at_the_end"] = os.getloadavg() if hasattr(os, "getloadavg") else None
    try:
        Path(out).write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UnavailableError(f"{error.strerror} at {out}", "a place to write", "Choose another path") from error
    print(f"{table(record)}\nSaved in {out}")
    return record


def goals(rows: Sequence[dict]) -> list[dict[str, Any]]:
    """Each goal at each size where both its rows were measured."""
    found = []
    for goal in GOALS:
        for row in rows:
            if row["row"] != goal.row or _size(row) not in goal.sizes:
                continue
            if goal.megabytes:
                measured, cpu = _above(rows, row, goal.against), None
            else:
                measured, cpu = (goal.of(ratio(rows, row, goal.against, f"{kind}_ms")) for kind in ("wall", "cpu"))
            if measured is not None:
                found.append(
                    {
                        "goal": str(goal),
                        "size": f"{row['batch']} x {row['length']}",
                        "measured": measured,
                        "measured_cpu": cpu,  # steadier where other work takes turns
                        "met": goal.met(measured),
                    }
                )
    return found


def _above(rows: Sequence[dict], row: dict, against: str) -> float | None:
    other = next((r for r in rows if r["row"] == against and _size(r) == _size(row)), None)
    if other is None or row["peak_mb"] is None or other["peak_mb"] is None:
        return None
    return row["peak_mb"] - other["peak_mb"]


def table(record: dict[str, Any]) -> str:
    """The table and the goals as text."""
    where = record["machine"]
    lines = [
        f"{record['model']['name']}, {where['cpu']} ({where['instructions']['text']}), {where['threads']} threads, "
        f"torch {where['torch']}, OMP_WAIT_POLICY={where['environment']['OMP_WAIT_POLICY']}",
        f"{'size':>9}  {'':<46}{'wall ms':>10}{'CPU ms':>10}{'x bare':>8}{'x bridge':>9}{'peak MB':>9}",
    ]
    for row in record["rows"]:
        size = f"{row['batch']} x {row['length']}"
        peak = "" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}"
        lines.append(
            f"{size:>9}  {row['row']:<46}{row['wall_ms']:>10.1f}{row['cpu_ms']:>10.1f}"
            f"{row['wall_ratio']:>8.2f}{row['wall_ratio_to_bridge']:>9.2f}{peak:>9}"
        )
    if where["load_average"] and where["load_average"][0] > (where["cpu_count"] or 1):
        lines.append(
            f"Other work was running (load average {where['load_average'][0]:.1f}): wall times are not to be trusted."
        )
    lines.append("Goals:")
    lines += [
        f"  {'met   ' if g['met'] else 'missed'}  {g['size']:>9}  {g['goal']}: {g['measured']:.2f}"
        + (f" (CPU {g['measured_cpu']:.2f})" if g["measured_cpu"] is not None else "")
        for g in record["goals"]
    ]
    return "\n".join(lines)
