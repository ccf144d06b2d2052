"""What is shown of a batch, in the shell and on the page alike: its figures, its table, its report.

Read `figures`, which draws aggregates and the table of prompts, then `report`, which puts them on one page.
"""
