"""Circuits written into weights by hand, so that an analysis can be held against a known answer."""

from typing import Any

import torch

from workbench.loading.toys.transformer import ToyConfig, ToyTransformer

__all__ = ["induction_circuit", "previous_token_circuit"]


def induction_circuit(d_vocab: int = 64, n_ctx: int = 64, sharpness: float = 200.0) -> ToyTransformer:
    """A two-layer attention-only model whose weights are a perfect induction circuit.

    Residual stream: [token one-hot | position one-hot | previous token one-hot | prediction]. L0H0 attends to the
    previous position and writes its token into the third part; L1H0 looks for the position whose previous token equals
    the current one and copies its token into the prediction. All other heads attend to their own position and write
    nothing. sharpness: the score of a match before division by sqrt(d_head); patterns are one-hot to 1e-6 at 200.
    """
    d_head = max(d_vocab, n_ctx)
    config = ToyConfig(
        n_layers=2, n_heads=2, d_model=3 * d_vocab + n_ctx, d_head=d_head, d_vocab=d_vocab, n_ctx=n_ctx
    )  # fmt: skip
    model = ToyTransformer(config)
    token, position = slice(0, d_vocab), slice(d_vocab, d_vocab + n_ctx)
    previous = slice(d_vocab + n_ctx, 2 * d_vocab + n_ctx)
    prediction = slice(2 * d_vocab + n_ctx, 3 * d_vocab + n_ctx)
    strength = sharpness * d_head**0.5 / 10
    blocks: Any = model.blocks
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.weight[:, token] = torch.eye(d_vocab)
        model.positions.weight[:, position] = torch.eye(n_ctx)
        for block in blocks:
            for head in range(2):  # attend to the own position, write nothing
                block.W_Q[head, position, :n_ctx] = strength * torch.eye(n_ctx)
                block.W_K[head, position, :n_ctx] = torch.eye(n_ctx)
        first, second = blocks
        first.W_K[0, position, :n_ctx] = torch.diag(torch.ones(n_ctx - 1), 1)  # key j answers query j + 1
        first.W_V[0, token, :d_vocab] = torch.eye(d_vocab)
        first.W_O[0, :d_vocab, previous] = torch.eye(d_vocab)
        second.W_Q[0].zero_()
        second.W_K[0].zero_()
        second.W_Q[0, token, :d_vocab] = strength * torch.eye(d_vocab)
        second.W_K[0, previous, :d_vocab] = torch.eye(d_vocab)
        second.W_V[0, token, :d_vocab] = torch.eye(d_vocab)
        second.W_O[0, :d_vocab, prediction] = torch.eye(d_vocab)
        model.unembed.weight[:, prediction] = 10 * torch.eye(d_vocab)
    return model


def previous_token_circuit(d_vocab: int = 32, n_ctx: int = 32, sharpness: float = 12.0) -> ToyTransformer:
    """A one-layer attention-only model that says the token before the last one.

    Residual stream: [token one-hot | position one-hot | prediction]. L0H1 attends to the previous position and copies
    its token into the prediction; L0H0 attends to its own position and writes nothing.
    """
    d_head = max(d_vocab, n_ctx)
    config = ToyConfig(n_layers=1, n_heads=2, d_model=2 * d_vocab + n_ctx, d_head=d_head, d_vocab=d_vocab, n_ctx=n_ctx)
    model = ToyTransformer(config)
    token, position = slice(0, d_vocab), slice(d_vocab, d_vocab + n_ctx)
    prediction = slice(d_vocab + n_ctx, 2 * d_vocab + n_ctx)
    block: Any = model.blocks[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.embed.weight[:, token] = torch.eye(d_vocab)
        model.positions.weight[:, position] = torch.eye(n_ctx)
        for head in range(2):
            block.W_Q[head, position, :n_ctx] = sharpness * d_head**0.5 / 10 * torch.eye(n_ctx)
            block.W_K[head, position, :n_ctx] = torch.eye(n_ctx)
        block.W_K[1, position, :n_ctx] = torch.diag(torch.ones(n_ctx - 1), 1)  # key j answers query j + 1
        block.W_V[1, token, :d_vocab] = torch.eye(d_vocab)
        block.W_O[1, :d_vocab, prediction] = torch.eye(d_vocab)
        model.unembed.weight[:, prediction] = 10 * torch.eye(d_vocab)
    return model
