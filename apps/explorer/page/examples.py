"""Prompts whose next token is worth looking at."""

__all__ = ["EXAMPLES", "FIRST", "FIRST_IDS"]

FIRST = "The capital of France is Paris. The capital of Germany is Berlin. The capital of France is"

# For toys, which have no tokenizer: a sequence that repeats.
FIRST_IDS = "3 7 9 5 11 3 7 9"

# what it shows -> text
EXAMPLES = {
    "a fact": "The capital of France is",
    "a fact, said before": FIRST,
    "who gets it": "After the concert, Laura and Peter walked home. Peter gave the umbrella to",
    "a made-up name again": "Mrs. Tavernik opened the door. Nobody expected to see Mrs. Tavern",
    "a list": "Monday, Tuesday, Wednesday, Thursday,",
    "an opposite": "The opposite of hot is",
    "code": "def add(left, right):\n    return left +",
    "an import": "import numpy as",
    "another language": "La capitale de la France est Paris. La capitale de l'Allemagne est",
    "a pronoun": "The doctor told the nurse that",
}
