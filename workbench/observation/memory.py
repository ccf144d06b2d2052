"""How much a run will keep, before it runs."""

from collections.abc import Sequence

from workbench.models.model import Sizes
from workbench.observation.need import Need

__all__ = ["predict_bytes"]


def predict_bytes(sizes: Sizes, needs: Sequence[Need], n_prompts: int, length: int) -> int:
    """Bytes that the kept results of needs will take, from their declared dims; dims we do not know count as 1."""
    width = {
        "head": sizes.n_heads, "key_value_head": sizes.n_key_value_heads, "pos": length, "query": length, "key": length,
        "d_model": sizes.d_model, "dimension": sizes.d_model, "d_head": sizes.d_head, "neuron": sizes.d_mlp,
        "expert": sizes.n_experts, "d_vocab": sizes.d_vocab,
    }  # fmt: skip
    total = 0
    for need in needs:
        positions = need.positions
        size = 4 * n_prompts * (len(need.layers or range(sizes.n_layers)) if need.layered else 1)
        for dim in need.dims:
            size *= len(positions) if positions is not None and dim == "pos" else width.get(dim, 1)
        total += size
    return total
