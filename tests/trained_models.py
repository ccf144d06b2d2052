"""Small models of other families, trained within minutes for claims that need a model that has learnt something."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, PreTrainedTokenizerFast

from workbench import Model
from workbench.corpora import python_corpus
from workbench.loading.pretrained import wrap

VOCABULARY, LENGTH = 128, 48  # of the repeater
_PIECE, _STEPS = 96, 900  # tokens of a piece that the reader learns from, BOS included; its training steps


def repeater() -> Model:
    """A GPT-2 of three layers (LayerNorm, learned positions, no gates), trained until it repeats random tokens; half of
    its sequences repeat with a random period, the others do not."""
    torch.manual_seed(0)
    dropouts = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    config = GPT2Config(n_layer=3, n_head=16, n_embd=128, n_positions=128, vocab_size=VOCABULARY, **dropouts)
    module = AutoModelForCausalLM.from_config(config).float().train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=0.01)
    for _ in range(1500):
        ids = torch.randint(1, VOCABULARY, (32, LENGTH))
        for row in ids:
            period = int(torch.randint(8, LENGTH // 2, ()))
            row[:] = row[:period].repeat(LENGTH // period + 1)[:LENGTH]
        ids[:, 0] = 0
        loss = module(ids, labels=ids).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if loss < 2.3:
            break
    return wrap(module.eval(), None, name="repeater")


def reader() -> Model:
    """A GPT-NeoX of four layers (parallel blocks, partly rotary, LayerNorm) with a tokenizer of its own, trained on the
    interpreter's documentation: three minutes."""
    torch.manual_seed(0)
    texts = [document.text for document in python_corpus().documents]
    tokenizer = _tokenizer(texts)
    ids = [tokenizer.encode(text, add_special_tokens=False) for text in texts]
    step = _PIECE - 1
    pieces = [[0, *row[at : at + step]] for row in ids for at in range(0, len(row) - step, step)]
    data = torch.tensor(pieces)
    config = GPTNeoXConfig(
        vocab_size=len(tokenizer), hidden_size=128, num_hidden_layers=4, num_attention_heads=8, intermediate_size=512,
        max_position_embeddings=256, rotary_pct=0.25, bos_token_id=0, eos_token_id=0, hidden_dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    module = AutoModelForCausalLM.from_config(config).float().train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=2e-3, weight_decay=0.05, betas=(0.9, 0.98))
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=_STEPS, pct_start=0.05)
    for _ in range(_STEPS):
        rows = data[torch.randint(0, len(data), (16,))]
        loss = module(rows, labels=rows).loss
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        rate.step()
    return wrap(module.eval(), tokenizer, name="reader")


def _tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """2048 pairs of bytes, BOS in front of a text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=2048, special_tokens=["<bos>"], initial_alphabet=alphabet)
    made.train_from_iterator(texts, trainer)
    made.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<bos>")
