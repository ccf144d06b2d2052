"""Token erasure: where a model stops carrying the pieces of a word, read by probes that are trained first (`trained/`).

`token_erasure` reads one prompt with what `readout` and `psi` compute; `accuracy` (with `contrasts`), `vocabulary` and
`swap` say how far that holds, over text. Read `token_erasure`, `psi`, `readout`, then `trained/`; `readout_probes`
trains from the page.
"""

QUESTION = "What is this token made of?"  # what its views answer: the page groups them by it
