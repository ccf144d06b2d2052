"""The analyses, one file each, and the catalog that lists them in the order of the page.

Adding one costs its file, one line here and its test. Names are the files' names with hyphens.
"""

from workbench.analysis.legacy import LegacyCatalog

__all__ = ["CATALOG"]

CATALOG = LegacyCatalog(
    {
        "logit-lens": "probes.lens.logit_lens:LogitLens",
        "induction-heads": "probes.attention.induction_heads:ENTRY",
        "induction-on-prompt": "probes.attention.induction_heads:ON_PROMPT",
        "attention-sinks": "probes.attention.sinks.attention_sinks:ENTRY",
        "flow-routes": "probes.routes:ENTRY",
        "direct-logit-attribution": "probes.circuits.direct_logit_attribution:DirectLogitAttribution",
        "causal-check": "probes.checks.causal_check:CausalCheck",
        "activation-patching": "probes.circuits.activation_patching:ActivationPatching",
        "attribution-patching": "probes.circuits.attribution_patching:AttributionPatching",
        "attention-knockout": "probes.circuits.attention_knockout:AttentionKnockout",
        "causal-tracing": "probes.circuits.causal_tracing:CausalTracing",
        "circuit-evaluation": "probes.circuits.evaluation:CircuitEvaluation",
        "circuit-edges": "probes.circuits.edges:CircuitEdges",
        "flow-route-faithfulness": "probes.routes.faithfulness:ENTRY",
        "flow-route-part": "probes.routes.parts:ENTRY",
        "flow-route-heads": "probes.routes.heads:ENTRY",
        "flow-route-task-heads": "probes.routes.task_heads:ENTRY",
        "sink-rates": "probes.attention.sinks.sink_rates:ENTRY",
        "sink-conditions": "probes.attention.sinks.sink_conditions:ENTRY",
        "token-erasure": "probes.erasure:ENTRY",
        "token-erasure-probes": "probes.erasure:MAKING",
        "token-erasure-accuracy": "probes.erasure:ACCURACY",
        "token-erasure-vocabulary": "probes.erasure:VOCABULARY",
        "token-erasure-swap": "probes.erasure:SWAP",
        "active-dormant": "probes.attention.active_dormant:ENTRY",
        "head-table": "probes.attention.head_table:ENTRY",
    }
)
