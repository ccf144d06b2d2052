"""Explain: from a prompt with a contrast, or a task, the whole way to a circuit that was tested."""

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import xarray as xr

from probes.attention.induction.induction_heads import InductionHeads
from probes.checks import claims
from probes.checks.matched_controls import CALIPER
from probes.checks.pair_survey import DIRECTIONS, PromptsOfPair, pair_survey
from probes.circuits.activation_patching import patching
from probes.circuits.attribution_patching import estimates
from probes.circuits.circuit_search import circuit_result
from probes.circuits.edge_rankings import pairs_of, task_digest
from probes.circuits.graph.circuit import Circuit, against_random, search
from probes.circuits.graph.edited import need_parts
from probes.circuits.graph.faithfulness import Measured
from probes.circuits.graph.graph import Graph
from probes.circuits.graph.parts import minimality, node_scores
from probes.circuits.graph.rankings import forwards, rank
from probes.circuits.graph.task_texts import TASKS
from probes.circuits.graph.tasks import Pair, Task
from probes.circuits.prompt_pairs import Against, Corrupt, PromptPair, unused
from probes.explain.contrasts import contrast_of, shown_text
from probes.explain.figures import circuit_figure, heads_figure, pairs_table, parts_table, steps_table, where_figure
from probes.explain.found import Found, behaviour_found, faithful_found, pairs_found, parts_found
from probes.explain.parts import described_parts, induction_labels, node_of
from probes.explain.sentences import behaves, matters
from probes.explain.steps import costs
from probes.explain.variants import made_pairs
from workbench.analysis.kinds import Study
from workbench.analysis.pace import SHORT
from workbench.analysis.parameters import Choice, Range
from workbench.analysis.progress import part
from workbench.analysis.results import dataset
from workbench.analysis.run import Progress
from workbench.analysis.view import Ask, View
from workbench.figures import head_name
from workbench.models.hooks import MLP_OUT, RESID_PRE, Z
from workbench.models.model import Model, Sizes
from workbench.models.prompt import Tokens
from workbench.models.selfcheck import PADDING, PARTS, READOUT, RESIDUAL
from workbench.observation.metrics import TARGET
from workbench.observation.recording import record
from workbench.observation.sweeps import base_run

__all__ = ["PROMPT", "TASK_TOKENS", "VIEW", "Explain"]

PROMPT = "prompt"
TASK_TOKENS = 16  # of a prompt of a task, about: for what it will cost
_RANKINGS = ("RelP", "EAP-IG", "EAP", "edge pruning")  # those that a large model allows
_DESCRIBED = 10  # parts of a circuit that are read off


class Explain(Study, name="explain", title="Explain", requires=(READOUT, PADDING, RESIDUAL, PARTS)):
    """What computes an answer: heads, MLPs and the edges between them, tested on pairs that nothing had seen.

    Definition: A prompt becomes a contrast (counterfactual of equal length, answer, wrong answer; what is not given is
    made and shown), and the contrast becomes pairs like it by swapping words of the same kind; or a task brings pairs.
    The metric is the logit of the answer minus that of the wrong one. Nothing goes on unless the model prefers the
    answers on the test pairs and the swap changes that (both by sign flips at 0.05, by at least `smallest`). Every
    state of the shown pair is patched. Every head and MLP is replaced by what it is on the counterfactual, beside
    controls that change as much, all corrected together (`probes.checks.pair_survey`); where none matters, nothing is
    found. Edges are ranked on training pairs, the smallest circuit that reaches `wanted` is searched on validation
    pairs, and its faithfulness, completeness and random circuits of its size are measured on test pairs. A circuit
    holds on a pair of whose own difference it keeps half. Parts are read off the shown pair at the position where
    replacing them is estimated to matter most.

    Limits: It explains this contrast, on prompts like these: another counterfactual asks something else. Where pairs
    have the model's own answers, that it prefers them is so by construction, so they need a probability of 0.1; the
    survey and the random circuits are not. Swapped words are alike to the model, and may make odd sentences: look at
    the pairs. Where these keep the shown swap, what is found holds for that swap alone. The circuit is the smallest
    that the search met; where much is left without it, it has a rival. What a part raises is read through the final
    norm alone. Labels say what a head does on other stimuli. Directions that stand in for MLPs are a weak control.

    Source: measures arXiv 2504.13151 (MIB) and 2211.00593 (completeness, minimality); ranking arXiv 2508.21258 (RelP);
    survey by max T (Westfall and Young 1993). The way from one to the next is ours.

    Returns: `recovered`, `resid_estimate` (layer, pos); `contrast` with `_low`, `_high`, `contrast_p`, `effect`,
    `matters` (layer, head) and the same with `mlp_` (layer); `edge_source`, `edge_target`, `score` (edge);
    `faithfulness`, `completeness`, `holds`, `gap` with `_low` and `_high`; `random_faithfulness` (draw), `p`;
    `pair_...` (prompt), the test pairs; `part_...` (component), what the parts do. What a step has not found yet is not
    there.
    """

    task: Annotated[
        str,
        Choice((PROMPT, *TASKS), files=True),
        "what is explained: the prompt, a task, or a file of clean, corrupt, answer, wrong",
    ] = PROMPT
    corrupt: Corrupt = ""
    target: Annotated[str, f"the answer: {TARGET}; empty: the model's own"] = ""
    against: Against = ""
    wanted: Annotated[float, Range(0.05, 1.0), "the faithfulness to reach"] = 0.8
    ranking: Annotated[str, Choice(_RANKINGS), "how edges are ranked"] = "RelP"
    pairs: Annotated[int, Range(3, 500), "pairs to rank on, and as many to search on; the survey takes both"] = 6
    tested: Annotated[int, Range(5, 1000), "other pairs to test on; fewer than 16 give no intervals"] = 16
    draws: Annotated[int, Range(19, 200), "random circuits of its size"] = 19
    caliper: Annotated[float, Range(1.05, 100.0), "factor of norm within which a control head lies"] = CALIPER
    smallest: Annotated[float, Range(0.0, 1e6), "logits that the swap must change to be explained"] = 0.3
    seed: Annotated[int, Range(0, 2**31 - 1), "draws pairs, controls and random circuits"] = 0

    def reads_prompt(self) -> bool:
        """A task brings pairs of its own."""
        return self.task == PROMPT

    def artifact(self, model: Model) -> str | None:
        """What the pairs of a user's file are: an edited file asks something else."""
        return "" if self.task == PROMPT else task_digest(self.task)

    def partials(
        self, model: Model, tokens: Tokens | None, *, progress: Progress | None = None, allow_network: bool = False
    ) -> Generator[xr.Dataset, None, None]:
        """What is known after each step."""
        need_parts(model)  # what no circuit can be measured on is said before an hour is spent
        sizes = (self.pairs, self.pairs, self.tested)
        if self.task != PROMPT:
            task = pairs_of(model, self.task, train=sizes[0], validation=sizes[1], test=sizes[2], seed=self.seed)
            aside = unused(self.task, self.corrupt, self.target, self.against)
            way = _Way(self, model, task.train[0], progress, f"{aside} {task.note}".strip())
            yield way.begun()
            yield from way.go(task, f"pairs of {task.name!r}; the first one to rank on is shown")
            return
        contrast = contrast_of(model, tokens, self.corrupt, self.target, self.against)
        way = _Way(self, model, contrast.pair, progress, contrast.note)
        yield way.begun()  # to make pairs takes a while
        made = made_pairs(model, contrast, sizes, self.seed)
        by = "made by the swap that moves the prediction most" if contrast.made_counterfactual else "given"
        told = [f"the counterfactual is {by}", "pairs by swapping words of the same kind", made.answers]
        if contrast.own_answers and not contrast.has_words(model):
            told.append("both answers are punctuation: name others (target, against) to ask about words")
        if made.is_short_of(sizes):
            told.append(f"no more pairs could be made than these, of the {' / '.join(map(str, sizes))} asked")
        yield from way.go(made.task, "; ".join(told))

    def steps(self, sizes: Sizes, n_tokens: int) -> dict[str, float]:
        """What each step will cost, in bare forward passes of the prompt."""
        asked = {"pairs": self.pairs, "tested": self.tested, "draws": self.draws, "directions": DIRECTIONS}
        ranked = forwards(self.ranking, Graph.of(sizes).n_edges, self.pairs)
        labelled = InductionHeads().cost(sizes, SHORT) * SHORT / n_tokens  # on sequences of its own
        return costs(sizes, n_tokens, **asked, ranked=ranked, labelled=labelled)

    def cost(self, sizes: Sizes, n_tokens: int) -> float:
        """All steps, where none of them ends it."""
        return sum(self.steps(sizes, n_tokens).values())


@dataclass(eq=False)
class _Way:
    """The steps on one model and shown pair. note: what to say of the answers beside the finding."""

    asked: Explain
    model: Model
    shown: Pair
    progress: Progress | None = None
    note: str = ""
    told: float = 0.0

    def __post_init__(self) -> None:
        self.costs = self.asked.steps(self.model.sizes, len(self.shown.clean))
        self.found = Found(self.model, self.costs, self.asked.smallest, self.note)

    def begun(self) -> xr.Dataset:
        """The contrast, and where its information sits as gradients tell: what is known before any pair is made."""
        model, shown = self.model, self.shown
        sites = [RESID_PRE, Z, *([MLP_OUT] if model.sizes.d_mlp else [])]
        by_site = estimates(model, record(model, shown.clean, sites), shown.corrupt, shown.metric, sites)
        self.estimated = {hook.name: values.numpy() for hook, values in by_site.items()}
        units = shown.metric.units
        self.guessed = dataset(
            base_run(model, shown.clean).observation,
            resid_estimate=("layer pos", by_site[RESID_PRE], units, None, "estimated effect of patching the state"),
            head_estimate=("layer head", by_site[Z].sum(1), units, None, "estimated effect of patching the head"),
        )
        attrs = {
            "shown_clean": shown_text(model, shown.clean),
            "shown_corrupt": shown_text(model, shown.corrupt),
            "noted": self.note,
            **shown.metric.tokens(model.vocabulary),
        }
        return self.found.add("where", self.guessed, attrs, complete=False)

    def go(self, task: Task, made: str) -> Iterator[xr.Dataset]:
        """One after the other; ends where nothing is found. made: how the pairs were."""
        self.task = task
        self._passed("pairs")
        attrs = {"task": task.name, "pairs": task.describe(), "made": made}
        yield self.found.add("pairs", pairs_found(self.model, task.test), attrs)
        yield self._patched()
        tested = Measured(self.model, task.test, progress=self._tick)
        of_model = behaviour_found(tested.whole, tested.empty)  # with no edge kept: the counterfactual
        self._passed("behaviour")
        whole = self.found.add("behaviour", of_model)
        yield whole
        if not behaves(whole):
            return
        for whole in self._survey():
            yield whole
        if matters(whole):
            yield from self._circuit(tested)

    def _span(self, step: str) -> Progress | None:
        """The progress of a step that tells its own."""
        first = self.told
        self.told = min(1.0, first + self.costs[step] / max(sum(self.costs.values()), 1e-9))
        return part(self.progress, first, self.told)

    def _tick(self, share: float) -> None:
        """After every pass of a step whose length is not known: whoever wants to cancel is asked."""
        if self.progress is not None:
            self.progress(self.told)

    def _passed(self, step: str) -> None:
        """Tell that a step is done."""
        self._span(step)
        self.found.finish(step)
        if self.progress is not None:
            self.progress(self.told)

    def _patched(self) -> xr.Dataset:
        """States of the shown pair, patched one by one."""
        shown = self.shown
        differing = tuple(i for i, (a, b) in enumerate(zip(shown.clean.ids, shown.corrupt.ids, strict=True)) if a != b)
        pair = PromptPair(shown.clean, shown.corrupt, differing)
        *_, patched = patching(self.model, pair, "resid_pre", metric=shown.metric, progress=self._span("where"))
        return self.found.add(
            "where",
            self.guessed.merge(patched[["recovered"]], compat="override"),
            {"differing": pair.describe(), "metric": patched.attrs["metric"]},
        )

    def _survey(self) -> Iterator[xr.Dataset]:
        pairs = [PromptsOfPair(one.clean, one.corrupt, one.metric) for one in (*self.task.train, *self.task.validation)]
        options = {"caliper": self.asked.caliper, "seed": self.asked.seed, "progress": self._span("survey")}
        for some in pair_survey(self.model, pairs, **options):  # type: ignore[arg-type]  # one of each type
            n = some.attrs["n_surveyed"]
            yield self.found.add("survey", some, some.attrs, complete=n == len(pairs))

    def _circuit(self, tested: Measured) -> Iterator[xr.Dataset]:
        asked, model, found, task = self.asked, self.model, self.found, self.task
        scores = rank(model, task.train, asked.ranking, seed=asked.seed, progress=self._span("edges"))
        found.finish("edges")
        searched = Measured(model, task.validation, progress=self._tick)
        circuit = search(searched, scores, asked.wanted, "mixed")
        self._passed("circuit")
        graph, about = Graph.of(model.sizes), {"task": task.name}
        if circuit is None:
            nothing = Circuit(graph, np.zeros(graph.shape, bool), scores.mean(0), about)
            self._passed("test")
            gap = float((searched.whole - searched.empty).mean())
            attrs = self._of_circuit(nothing) | {"searched_gap": gap, "n_searched": len(searched.pairs)}
            yield found.add("test", circuit_result(nothing, tested, {}), attrs)
            return
        circuit = Circuit(graph, circuit.mask, circuit.scores, circuit.about | about)
        kept, rest, whole, none = tested.of(
            [circuit.mask, circuit.complement, graph.exists, np.zeros(graph.shape, bool)]
        )
        by_pair = faithful_found(whole, none, kept, rest)
        measured = circuit_result(circuit, tested, {})
        self._passed("test")
        yield found.add("test", by_pair.merge(measured, compat="override"), self._of_circuit(circuit))
        compared = against_random(tested, circuit, asked.draws, asked.seed)
        self._passed("random")
        yield found.add("test", by_pair.merge(circuit_result(circuit, tested, compared), compat="override"))
        yield self._parts(circuit, searched)

    def _of_circuit(self, circuit: Circuit) -> dict[str, object]:
        graph = circuit.graph
        nodes = [node_of(name) for name in circuit.nodes if name != "input"]
        names = [head_name(*node) if node[1] >= 0 else f"L{node[0]}MLP" for node in nodes]
        return {
            "n_edges": graph.n_edges, "n_layers": graph.n_layers, "n_heads": graph.n_heads, "has_mlps": int(graph.mlps),
            "is_parallel": int(graph.parallel), "wanted": self.asked.wanted, "circuit_parts": " ".join(names),
            "n_circuit_heads": sum(head >= 0 for _, head in nodes), "n_circuit_mlps": sum(h < 0 for _, h in nodes),
        }  # fmt: skip

    def _parts(self, circuit: Circuit, searched: Measured) -> xr.Dataset:
        """The strongest parts of the circuit."""
        sent = np.abs(node_scores(circuit.graph, np.where(circuit.mask, np.nan_to_num(circuit.scores), 0)))
        order = [circuit.graph.sources[i] for i in np.argsort(-sent, kind="stable") if circuit.uses[i] and i > 0]
        names = order[:_DESCRIBED]
        worth = {node_of(name): value for name, value in minimality(searched, circuit, names).items()}
        labels, null = induction_labels(self.model, self.asked.seed)
        nodes = sorted(worth, key=lambda node: -worth[node])
        pairs = (*self.task.validation, *self.task.test)
        described = described_parts(self.model, nodes, self.shown, self.estimated, pairs, labels)
        self._passed("parts")
        copying = (
            "copies, suppresses: the token it looks at most, position 0 aside, against the prompt's others, "
            f"{len(pairs)} prompts, q 0.05"
        )
        parts = parts_found(described, worth, capped=bool(self.model.readout.soft_cap))
        return self.found.add("parts", parts, {"null": null, "copying_null": copying})


VIEW = View(
    Explain,
    question="What computes this answer, how sure is that, and what is left unexplained?",
    asks=(
        Ask("corrupt", "Compare with", pick="pair", empty="this prompt with one word swapped"),
        Ask("target", "and explain why the answer is", empty="the model's own"),
        Ask("against", "rather than", empty="that of the other prompt"),
    ),
    figures=(circuit_figure, where_figure, heads_figure),
    tables=(parts_table, pairs_table, steps_table),
    claims=(claims.head,),
)
