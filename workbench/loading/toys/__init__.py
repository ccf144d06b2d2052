"""Small transformers of our own: trained on tasks with known answers, or written by hand.

`transformer` is the module and `adapter` what a Model sees of it; `circuits` are written into its weights by hand,
`families` are random models of Hugging Face's. A trained one comes from a task (`tasks/`), a `recipe`, its `training`,
under `clamps` or free, and is kept as `checkpoints`; `recipes` are those that load by name. Read them in this order.
"""
