"""What an analysis is, how it is found, run, kept and compared.

`kinds` says what one is, `run` is the only place that feeds them, `results` holds what they return to the conventions.
Read `catalog`, `run`, `results`; `compare` stands beside them.
"""
