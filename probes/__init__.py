"""The analyses, one file each, and the catalog that lists them in the order of the page.

Adding one costs its file, one line here and its test. Names are the files' names with hyphens.
"""

from workbench.catalog import Catalog

__all__ = ["CATALOG"]

CATALOG = Catalog(
    {
        "logit-lens": "probes.logit_lens:ENTRY",
        "induction-heads": "probes.induction_heads:ENTRY",
        "induction-on-prompt": "probes.induction_heads:ON_PROMPT",
        "attention-sinks": "probes.attention_sinks:ENTRY",
        "flow-routes": "probes.flow_routes:ENTRY",
        "direct-logit-attribution": "probes.direct_logit_attribution:ENTRY",
        "causal-check": "probes.causal_check:ENTRY",
        "activation-patching": "probes.activation_patching:ENTRY",
        "attribution-patching": "probes.attribution_patching:ENTRY",
        "attention-knockout": "probes.attention_knockout:ENTRY",
        "causal-tracing": "probes.causal_tracing:ENTRY",
        "circuit-evaluation": "probes.circuit_evaluation:ENTRY",
        "circuit-edges": "probes.circuit_edges:ENTRY",
        "flow-route-faithfulness": "probes.flow_routes.faithfulness:ENTRY",
        "flow-route-part": "probes.flow_routes.parts:ENTRY",
        "flow-route-heads": "probes.flow_routes.heads:ENTRY",
        "flow-route-task-heads": "probes.flow_routes.task_heads:ENTRY",
        "sink-rates": "probes.sink_rates:ENTRY",
        "sink-conditions": "probes.sink_conditions:ENTRY",
        "token-erasure": "probes.token_erasure:ENTRY",
        "token-erasure-probes": "probes.token_erasure:MAKING",
        "token-erasure-accuracy": "probes.token_erasure:ACCURACY",
        "token-erasure-vocabulary": "probes.token_erasure:VOCABULARY",
        "token-erasure-swap": "probes.token_erasure:SWAP",
        "active-dormant": "probes.active_dormant:ENTRY",
        "head-table": "probes.head_table:ENTRY",
    }
)
