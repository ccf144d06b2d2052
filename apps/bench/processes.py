"""What is timed of whole processes: from a command to its first answer, beside plain Hugging Face."""

import subprocess

from apps.bench.subject import Prepare, Subject, Timed
from workbench.children import own_python
from workbench.loading import bundled

__all__ = ["PROMPT", "command", "plain"]

PROMPT = "The capital of France is"

# What a user of transformers writes for the same: import, load, one pass, the most probable token.
_PLAIN = """
import sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
model = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32, local_files_only=True).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1], local_files_only=True)
with torch.no_grad():
    logits = model(**tokenizer(sys.argv[2], return_tensors="pt")).logits
print(tokenizer.decode([int(logits[0, -1].argmax())]))
"""


def plain(subject: Subject) -> Timed:
    """Plain Hugging Face in a process of its own."""
    return lambda: _run("-c", _PLAIN, str(bundled.path()), PROMPT)


def command(*words: str) -> Prepare:
    """`workbench` with these words in a process of its own."""
    return lambda subject: lambda: _run("-m", "apps.cli", *words)


def _run(*words: str) -> str:
    """What a Python that finds our packages prints."""
    command, environment = own_python(*words)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return done.stdout
