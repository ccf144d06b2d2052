"""What a probe must learn from data first: linear readouts, each with a card that says how good it is.

`trainer.train` makes them by a `recipe`, `published.import_probes` takes up those of others, `artifact` keeps, finds
and reads them and refuses a file made on another model, by its key; `command` is `workbench train erasure-probes`.
Read `states`, `fit`, `trainer`, `artifact`; `recipe` and `command` do without torch, since the shell reads their
options.
"""
