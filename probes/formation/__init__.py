"""How mechanisms form: toys along their training, and series of checkpoints.

`task_attention` says where heads of a toy look on its own task, in one pass. `series` puts any analyses of the catalog
along the steps of a run, `change_points` says whether and when a score changes at once, `real_checkpoints` does the
same for folders and files through a batch; `training_timeline` is the entry, `figures` draws it, `scrubbers` one
sequence at every step (`watched`). `findings/` has a file for each finding. Read them in this order.
"""

QUESTION = "How did it come about?"  # what its views answer: the page groups them by it
