"""How strongly heads stand on the routes of one prompt, of all its start tokens at once."""

import numpy as np
import xarray as xr

from probes.routes.extraction import Rule, kept_parts

__all__ = ["head_strength"]


def head_strength(result: xr.Dataset, rule: Rule) -> tuple[np.ndarray, np.ndarray]:
    """Strength, float32 (start, layer, head), and whether the head is on the start's route at all, bool.

    All start tokens are walked at once: a reached set is a row of a matrix, a layer is a matrix product.
    """
    keep, kept = kept_parts(result, rule)
    n_layers, n_pos = kept["mlp"].shape
    n_heads = result.attrs["n_heads"]
    names = ("edge_layer", "edge_query", "edge_key", "edge_head")
    layer, query, key, head = (result[name].values[keep].astype(np.int64) for name in names)
    weight = result["weight"].values[keep]
    reached = np.eye(n_pos, dtype=np.float32)  # start, position
    strength = np.zeros((n_pos, n_layers, n_heads), np.float32)
    is_on = np.zeros(strength.shape, bool)
    for at in range(n_layers - 1, -1, -1):
        here = layer == at
        mid = reached * (kept["mlp"][at] | kept["resid_mlp"][at])
        by_head, joined = np.zeros((n_pos, n_heads), np.float32), np.zeros((n_pos, n_pos), np.float32)
        np.add.at(by_head, (query[here], head[here]), weight[here])
        joined[query[here], key[here]] = 1
        strength[:, at] = mid @ by_head
        is_on[:, at] = strength[:, at] > 0
        below = mid @ joined + mid * kept["resid_attn"][at]
        below += reached * kept["mlp"][at] if result.attrs["parallel"] else 0
        reached = (below > 0).astype(np.float32)
    return strength, is_on
