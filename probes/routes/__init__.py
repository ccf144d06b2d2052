"""Information-flow routes: which edges between tokens a prediction is made of, from one forward pass.

Every representation is a sum: resid_mid of resid_pre, one part per (key, head) and a bias; resid_post of resid_mid and
the MLP's output. A part's share says how much closer to the sum it brings (see `contributions`). Keeping the strong
edges and walking down from one token gives its graph (see `extraction`); how much of the prediction the graph carries
is measured, not assumed (see `faithfulness`).

    result = run(model, "When Mary and John went to the store, John gave a bottle of milk to")
    graph = extract(result, coverage=0.8)       # another start, rule or threshold: no second pass
    routes_figure(result, start=3, threshold=0.01)

Source: Ferrando & Voita 2024, arXiv 2403.00824; Tufanov et al. 2024, arXiv 2404.07004. Coverage, the bias as a part,
the residue and faithfulness are ours.
"""

from probes.routes.claims import edge, route
from probes.routes.extraction import DEFAULT_COVERAGE, Rule, extract, kept_parts
from probes.routes.figures import DRAWN, edge_detail, layers_figure, routes_figure
from probes.routes.one_layer import follow
from probes.routes.routes import MIN_COVERAGE, MIN_SHARE, finer, flow_routes, needs, said
from workbench.analysis.legacy import Entry, Param
from workbench.models.selfcheck import PARTS, RESIDUAL

__all__ = [
    "ENTRY",
    "Rule",
    "edge_detail",
    "extract",
    "flow_routes",
    "kept_parts",
    "layers_figure",
    "needs",
    "routes_figure",
    "run",
]

ENTRY = Entry(
    name="flow-routes",
    title="Information-flow routes",
    source="Ferrando & Voita 2024, arXiv 2403.00824",
    definition=(
        "share of part z in y = max(0, ||y||_1 - ||y - z||_1), divided by the sum over all parts of y. y = resid_mid "
        "has the parts resid_pre, pattern[i, j, h] v[j, h] W_O[h] for every key j and head h, and b_O; y = resid_post "
        "has resid_mid and mlp_out. Coverage c keeps the fewest attention edges that hold a share c of a row's "
        "attention; a threshold keeps parts with a larger share. The graph is what the start token reaches downwards."
    ),
    limits=(
        "Shares are local: a path is not worth the product of its edges, and a large share need not matter for the "
        "prediction. Attention patterns are taken as given. Compare the graph's faithfulness with that of random edges "
        "before reading a story into it."
    ),
    scope="prompt",
    requires=(RESIDUAL, PARTS),
    needs=needs,
    analyse=flow_routes,
    figures=(routes_figure, layers_figure),
    details=(edge_detail,),
    claims=(route, edge),
    follow=follow,
    sentence=said,
    finer=finer,
    display=(
        Param("start", int, None, "token whose prediction is explained; default the last", optional=True, dim="pos"),
        Param("coverage", float, DEFAULT_COVERAGE, "share of each row's attention to keep", 0, 1, slider=(0, 1)),
        Param(
            "threshold",
            float,
            None,
            "keep parts above this share instead (the paper's rule)",
            0,
            1,
            optional=True,
            slider=(0, 0.1),
        ),
        Param("renormalise", bool, False, "divide what is kept of a row by its sum"),
        Param("hide_first", bool, False, "leave out edges from position 0"),
        Param(
            "edges_drawn",
            int,
            DRAWN,
            "attention edges to draw at most; heads between two tokens are one edge",
            1,
            100_000,
            slider=(20, 1000),
        ),
    ),
    params=(
        Param("p", int, 1, "norm: 1 is the paper's; 2 is not, but shows how much the choice matters", choices=(1, 2)),
        Param("min_share", float, MIN_SHARE, "keep every edge above this share; a lower threshold lowers it", 0, 1),
        Param(
            "min_coverage", float, MIN_COVERAGE, "keep the fewest edges that hold this much of a row's attention", 0, 1
        ),
    ),
)

run = ENTRY.run
