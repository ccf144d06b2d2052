"""The analyses, one file each, and the catalog that lists them in the order of the page.

    from probes import CATALOG, InductionHeads, LogitLens

Adding one costs its file, one line here and its test. Rooms: `lens`, `attention`, `erasure`, `routes`, `circuits`,
`checks`, `neurons`, `formation`, by what they look at; read `lens/logit_lens` first. Classes are imported when used.
"""

from typing import Any

from workbench.analysis.catalog import Catalog

CATALOG = Catalog(
    {
        "logit-lens": "probes.lens.logit_lens:LogitLens",
        "induction-heads": "probes.attention.induction.induction_heads:InductionHeads",
        "induction-on-prompt": "probes.attention.induction.induction_on_prompt:InductionOnPrompt",
        "attention-sinks": "probes.attention.sinks.attention_sinks:AttentionSinks",
        "flow-routes": "probes.routes.flow_routes:FlowRoutes",
        "explain": "probes.explain.explain:Explain",
        "direct-logit-attribution": "probes.circuits.direct_logit_attribution:DirectLogitAttribution",
        "causal-check": "probes.checks.causal_check:CausalCheck",
        "change-and-see": "probes.checks.change:ChangeAndSee",
        "head-survey": "probes.checks.head_survey:HeadSurvey",
        "activation-patching": "probes.circuits.activation_patching:ActivationPatching",
        "attribution-patching": "probes.circuits.attribution_patching:AttributionPatching",
        "attention-knockout": "probes.circuits.attention_knockout:AttentionKnockout",
        "causal-tracing": "probes.circuits.causal_tracing:CausalTracing",
        "circuit-evaluation": "probes.circuits.evaluation:CircuitEvaluation",
        "circuit": "probes.circuits.circuit_search:CircuitSearch",
        "edge-rankings": "probes.circuits.edge_rankings:EdgeRankings",
        "circuit-edges": "probes.circuits.edges:CircuitEdges",
        "flow-route-faithfulness": "probes.routes.faithfulness:FlowRouteFaithfulness",
        "flow-route-part": "probes.routes.parts:FlowRoutePart",
        "flow-route-heads": "probes.routes.heads:FlowRouteHeads",
        "flow-route-task-heads": "probes.routes.task_heads:FlowRouteTaskHeads",
        "sink-rates": "probes.attention.sinks.sink_rates:SinkRates",
        "sink-conditions": "probes.attention.sinks.sink_conditions:SinkConditions",
        "token-erasure": "probes.erasure.token_erasure:TokenErasure",
        "token-erasure-probes": "probes.erasure.readout_probes:TokenErasureProbes",
        "token-erasure-accuracy": "probes.erasure.accuracy:TokenErasureAccuracy",
        "token-erasure-vocabulary": "probes.erasure.vocabulary:TokenErasureVocabulary",
        "token-erasure-swap": "probes.erasure.swap:TokenErasureSwap",
        "active-dormant": "probes.attention.active_dormant.active_dormant:ActiveDormant",
        "head-table": "probes.attention.head_table:HeadTable",
        "surprisal": "probes.lens.surprisal:Surprisal",
        "attention": "probes.attention.pattern:Attention",
        "neurons": "probes.neurons.neurons:Neurons",
        "experts": "probes.neurons.experts:Experts",
        "expert-contrast": "probes.neurons.expert_contrast:ExpertContrast",
        "training-timeline": "probes.formation.training_timeline:TrainingTimeline",
        "task-attention": "probes.formation.task_attention:TaskAttention",
        "backcopy-formation": "probes.formation.findings.backcopy_formation:BackcopyFormation",
        "induction-formation": "probes.formation.findings.induction_formation:InductionFormation",
        "clamped-formation": "probes.formation.findings.clamped_formation:ClampedFormation",
        "abrupt-learning": "probes.formation.findings.abrupt_learning:AbruptLearning",
        "in-context-automata": "probes.formation.findings.in_context_automata:InContextAutomata",
    }
)

_BY_CLASS = {CATALOG.class_name(name): name for name in CATALOG.names}

__all__ = ["CATALOG", *sorted(_BY_CLASS)]


def __getattr__(name: str) -> Any:
    if name not in _BY_CLASS:
        raise AttributeError(f"module 'probes' has no attribute {name!r}")
    return CATALOG.get(_BY_CLASS[name])


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
