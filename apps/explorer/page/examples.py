"""Prompts whose next token is worth looking at."""

__all__ = ["CHATS", "EXAMPLES", "FIRST", "FIRST_IDS", "INDUCTION"]

FIRST = "The capital of France is Paris. The capital of Germany is Berlin. The capital of France is"

# The tour's.
INDUCTION = "Mrs. Tavernik opened the door. Nobody expected to see Mrs. Tavern"

# For toys, which have no tokenizer: a sequence that repeats.
FIRST_IDS = "3 7 9 5 11 3 7 9"

# what it shows -> text
EXAMPLES = {
    "induction: a made-up name again": INDUCTION,
    "copying: a fact, said before": FIRST,
    "a fact": "The capital of Italy is",
    "indirect object: who gets it": "After the concert, Laura and Peter walked home. Peter gave the umbrella to",
    "sinks: where heads rest": "The old clock on the wall had stopped, and nobody in the house knew when.",
    "a list that goes on": "Monday, Tuesday, Wednesday, Thursday,",
    "an opposite": "The opposite of hot is",
    "code: a function": "def add(left, right):\n    return left +",
    "code: an import": "import numpy as",
    "French, not English": "La capitale de la France est Paris. La capitale de l'Allemagne est",
    "a pronoun": "The doctor told the nurse that",
    "a chat: a question": "What is the capital of France?",
}
CHATS = ("a chat: a question",)  # those that are put through the chat template
