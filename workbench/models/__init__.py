"""What the workbench knows of a transformer: the Model, its hooks, prompts and tokens, its readout and self-check.

Nothing here loads anything, and no file of another room is needed to read it.
Read `hooks` (what can be watched), `vocabulary` (what a token is), `inputs` and `prompt`, then `model`.
"""
