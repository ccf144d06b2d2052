"""What the command line prints and saves about models, analyses and results: plain text, and one HTML page.

`summary` is a result in a screenful, `page` its figures, `description` an analysis before it is run, `card` a model;
`delivery` saves and prints in `places`. Read `summary` first. Text from a prompt or a vocabulary may hold anything, so
it is made visible before it reaches a terminal or a page.
"""
