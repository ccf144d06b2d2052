"""What is kept: the row that a result becomes, partials that merge, aggregates and tables of a store, and exports.

Read `rows`, which says what has a mean over prompts, then `places` and `merge`; `kept` reads what was merged before.
"""
