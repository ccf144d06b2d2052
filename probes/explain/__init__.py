"""From a prompt to an explanation: what computes an answer, how sure that is, what is left unexplained.

`same_kind` finds words to put in place of others, `contrasts` makes of a prompt a pair with answers, `swaps` puts other
words into both, `variants` makes pairs of that, apart for ranking, searching and testing. `explain` goes the whole way
in `steps`, with the functions of other rooms; `parts` says what the circuit's heads and MLPs do, `sentences` puts it in
words.
"""

QUESTION = "What computes this answer, and how sure is that?"  # what its views answer: the page groups them by it
