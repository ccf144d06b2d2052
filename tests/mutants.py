"""Breaks the numeric code in one place after another, in a copy, and sees whether a test notices: `make mutants`.

A mutant that no test notices is printed and makes the run fail. `ARGS="tracing statistics"` takes those whose file or
change holds one of the words. Outside CI: each mutant runs the tests of its room.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CHECKS, CIRCUITS, ROUTES = "tests/probes/checks", "tests/probes/circuits", "tests/probes/routes"
STATISTICS = "tests/workbench/test_statistics.py"


@dataclass(frozen=True)
class Mutant:
    """A change of one place, which `tests` must notice. keyword: limits them, as pytest's -k."""

    file: str
    old: str
    new: str
    tests: str
    keyword: str = ""


MUTANTS = (
    # rankings, curves, tracing
    Mutant(
        "probes/circuits/rankings.py",
        "return -np.concatenate",
        "return np.concatenate",
        f"{CIRCUITS}/test_evaluation.py",
    ),
    Mutant(
        "probes/circuits/curves.py",
        "under, draws=_DRAWS,",
        "under, draws=_DRAWS, level=0.9,",
        f"{CIRCUITS}/test_evaluation.py",
    ),
    Mutant(
        "probes/circuits/curves.py",
        "np.sign(1 - curve)[:, None]",
        "0.5",
        f"{CIRCUITS}/test_evaluation.py",
    ),
    Mutant(
        "probes/circuits/causal_tracing.py",
        "at - width // 2 + width)",
        "at - width // 2 + width + 1)",
        f"{CIRCUITS}/test_patching.py",
        "tracing",
    ),
    Mutant(
        "probes/circuits/causal_tracing.py",
        "stretches(at.tolist())",
        "stretches([at[0], at[-1]])",
        f"{CIRCUITS}/test_patching.py",
        "tracing",
    ),
    # active-dormant heads
    Mutant(
        "probes/attention/active_dormant/contrast.py",
        "q = benjamini_hochberg(permutation_test(first, second, seed=seed))",
        "q = permutation_test(first, second, seed=seed)",
        "tests/probes/attention/test_dormant_verdict.py",
    ),
    Mutant(
        "probes/attention/active_dormant/verdict.py",
        'low, high = at["ablation_dloss_low"].values, at["ablation_dloss_high"].values',
        'high, low = at["ablation_dloss_low"].values, at["ablation_dloss_high"].values',
        "tests/probes/attention/test_dormant_verdict.py",
    ),
    Mutant(
        "probes/attention/active_dormant/contrast.py",
        ">= EFFECT_FLOOR)",
        ">= 0)",
        "tests/probes/attention/test_dormant_verdict.py",
    ),
    # routes
    Mutant(
        "probes/routes/faithfulness.py",
        "(log_probs[0].exp() * (log_probs[0] - found))",
        "(found.exp() * (found - log_probs[0]))",
        f"{ROUTES}/test_faithfulness.py",
        "kl or random",
    ),
    Mutant(
        "probes/routes/faithfulness.py",
        "self.clean.patterns.double().cpu().log() -",
        "0 * self.clean.patterns.double() -",
        f"{ROUTES}/test_faithfulness.py",
        "kl or random",
    ),
    Mutant("probes/routes/task_heads.py", 'side="less"', 'side="greater"', f"{ROUTES}/test_heads.py", "ablation"),
    # erasure
    Mutant(
        "probes/erasure/contrasts.py",
        "times @ self.counts, times @ self.weights",
        "times @ self.counts, np.ones((len(times), 1)) * self.weights.sum(0)",
        "tests/probes/erasure/test_contrasts.py",
    ),
    # checks
    Mutant(
        "probes/checks/removal.py",
        "size = (after - before).norm(dim=-1, keepdim=True)",
        "size = (after - before).norm() * torch.ones_like(after[..., :1])",
        f"{CHECKS}/test_causal_check.py",
        "direction",
    ),
    Mutant(
        "probes/checks/removal.py",
        "size[0] = size[0] if len(size) == 1 else 0.0",
        "pass",
        f"{CHECKS}/test_causal_check.py",
        "direction",
    ),
    Mutant(
        "probes/checks/matched_controls.py",
        "apart <= np.log(caliper)",
        "apart <= 2 * np.log(caliper)",
        f"{CHECKS}/test_matched_controls.py",
    ),
    Mutant("probes/checks/matched_controls.py", "if unit not in chosen]", "]", f"{CHECKS}/test_matched_controls.py"),
    Mutant("probes/checks/matched_controls.py", "FEWEST = 19", "FEWEST = 10", f"{CHECKS}/test_matched_controls.py"),
    Mutant("probes/checks/relation.py", "size - level[moved], x", "size, x", f"{CHECKS}/test_relation.py"),
    Mutant("probes/checks/relation.py", "np.exp(-power * norms)", "1.0", f"{CHECKS}/test_relation.py"),
    Mutant("probes/checks/relation.py", "x, x**2, depth", "x, depth", f"{CHECKS}/test_relation.py"),
    Mutant(
        "probes/checks/sentences.py",
        'np.abs(controls) if side == "changes" else controls',
        "controls",
        f"{CHECKS}/test_sentences.py",
    ),
    Mutant(
        "probes/checks/sentences.py", "if known.p <= SMALL:", "if known.p < 2 * SMALL:", f"{CHECKS}/test_sentences.py"
    ),
    Mutant(
        "probes/checks/head_survey.py",
        "np.where(p <= SMALL, 1.0",
        "np.where(p <= 4 * SMALL, 1.0",
        f"{CHECKS}/test_head_survey.py",
    ),
    Mutant(
        "probes/checks/head_survey.py",
        "(low > -smallest) & (high < smallest)",
        "(p > 0.05)",
        f"{CHECKS}/test_head_survey.py",
    ),
    # labels
    Mutant(
        "probes/attention/induction/induction_heads.py",
        "sign_flip_test(difference - EFFECT_FLOOR",
        "sign_flip_test(difference",
        "tests/probes/attention/test_random_labels.py",
    ),
    Mutant(
        "probes/attention/sinks/measures.py",
        "max(epsilon, 2 * uniform)",
        "epsilon",
        "tests/probes/attention/test_sink_rates.py tests/probes/attention/test_attention_sinks.py",
    ),
    Mutant(
        "probes/attention/induction/repeat_attention.py",
        "n_others = query - first + 1 - seen.sum(-1)",
        "n_others = query + 1 - seen.sum(-1)",
        "tests/probes/attention/test_induction_heads.py",
        "window",
    ),
    # sinks in other conditions
    Mutant(
        "probes/attention/sinks/sink_conditions.py",
        "Knockout(tuple(range(1, len(ids))), (0,), layers)",
        "Knockout(tuple(range(1, len(ids))), (0,), layers[:1])",
        "tests/probes/attention/test_sink_conditions.py",
    ),
    # statistics
    Mutant("workbench/statistics.py", "ENOUGH = 16", "ENOUGH = 4", STATISTICS),
    Mutant("workbench/statistics.py", "np.maximum(np.minimum(above, reach), student)", "student", STATISTICS),
    Mutant("workbench/statistics.py", "np.abs(mean) / np.sqrt(", "np.abs(mean) / np.sqrt(1 + 0 * ", STATISTICS),
    Mutant("workbench/statistics.py", "return np.asarray(np.abs(mean)", "return np.asarray((mean)", STATISTICS),
    Mutant("workbench/statistics.py", '"greater": above, "less": below', '"greater": below, "less": above', STATISTICS),
    Mutant("workbench/statistics.py", "(1 + count) / (1 + total)", "count / total", STATISTICS),
)


def main(words: list[str]) -> int:
    """How many mutants no test notices."""
    wanted = [m for m in MUTANTS if not words or any(word in f"{m.file} {m.new}" for word in words)]
    survived = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        ignored = shutil.ignore_patterns(".git", ".venv", "site", "__pycache__", "*.png", ".hypothesis")
        shutil.copytree(ROOT, copy, ignore=ignored)
        for mutant in wanted:
            noticed = _is_noticed(copy, mutant)
            print(f"{'noticed ' if noticed else 'SURVIVED'} {mutant.file}: {mutant.new[:80]}", flush=True)
            survived += [] if noticed else [mutant]
    print(f"{len(wanted) - len(survived)} of {len(wanted)} mutants are noticed")
    return len(survived)


def _is_noticed(copy: Path, mutant: Mutant) -> bool:
    path = copy / mutant.file
    text = path.read_text(encoding="utf-8")
    if mutant.old not in text:
        raise SystemExit(f"{mutant.file} no longer holds {mutant.old!r}: mend the list of mutants")
    path.write_text(text.replace(mutant.old, mutant.new, 1), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *mutant.tests.split()]
    command += ["-k", mutant.keyword] if mutant.keyword else []
    found = subprocess.run(command, cwd=copy, capture_output=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    path.write_text(text, encoding="utf-8")
    if found.returncode not in (0, 1):
        raise SystemExit(f"the tests of {mutant.file} did not run:\n{found.stdout.decode()[-2000:]}")
    return found.returncode == 1


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
