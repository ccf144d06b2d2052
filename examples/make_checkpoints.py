"""Two folders for `checkpoints.toml`: a tiny model before and after it has learned to copy.

python examples/make_checkpoints.py      # a few seconds; writes checkpoints/ beside this file
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

STEPS, LENGTH, VOCABULARY = 150, 12, 64


def repeated(n: int, generator: torch.Generator) -> torch.Tensor:
    """Random tokens, twice in a row, behind token 0: `[n, 1 + 2 * LENGTH]`."""
    block = torch.randint(1, VOCABULARY, (n, LENGTH), generator=generator)
    return torch.cat([torch.zeros(n, 1, dtype=torch.long), block, block], dim=1)


def numbers() -> PreTrainedTokenizerFast:
    """A tokenizer of numbers, "17 4 17", with 0 in front: a folder is loaded with its own."""
    words = Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="0 $A", special_tokens=[("0", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=words, bos_token="0")


def main(steps: int = STEPS) -> None:
    """Train a little and save step 0 and the last step."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=64,
    )  # fmt: skip
    model, generator = LlamaForCausalLM(config), torch.Generator().manual_seed(0)
    folder = Path(__file__).parent / "checkpoints"
    for name in ("step-0", f"step-{STEPS}"):
        numbers().save_pretrained(folder / name)
    model.save_pretrained(folder / "step-0")
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        ids = repeated(64, generator)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    model.save_pretrained(folder / f"step-{STEPS}")
    print(f"loss {loss.item():.2f} after {steps} steps; in {folder}")


if __name__ == "__main__":
    main()
