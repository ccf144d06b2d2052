"""Keys: 64 hex digits that name what was asked.

Equal keys ask for the same numbers: weights, configuration, tokenizer, token ids, analysis, its code
(`workbench.analysis.code`), parameters, interventions, and what was learned from data.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["digest", "spec_key"]


def spec_key(
    model: str,
    token_ids: Any,
    analysis: str,
    code: str,
    params: Mapping[str, Any],
    *,
    interventions: Sequence[Any] = (),
    artifact_hash: str | None = None,
) -> str:
    """The key of what was asked.

    model: what names its weights, settings and tokenizer. token_ids: nested lists of ints, or None for an analysis with
    its own stimulus. code: `code_digest` of the analysis.
    """
    return digest([model, token_ids, analysis, code, dict(params), [str(i) for i in interventions], artifact_hash])


def digest(value: Any) -> str:
    """sha256 of a value as canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str, separators=(",", ":")).encode()).hexdigest()
