"""Prompts whose next token is worth looking at."""

__all__ = ["EXAMPLES", "FIRST"]

# what it shows -> text
EXAMPLES = {
    "a fact": "The capital of France is",
    "who gets it": "After the concert, Laura and Peter walked home. Peter gave the umbrella to",
    "seen before": "Mrs. Tavernik opened the door. Nobody expected to see Mrs. Tavern",
    "counting": "Monday, Tuesday, Wednesday, Thursday,",
    "opposites": "hot is to cold as tall is to",
    "code": "def add(left, right):\n    return left +",
    "agreement": "The keys to the old cabinet in the corner",
    "French": "Le chat dort sur le",
}

FIRST = "The capital of France is"
