"""What is run: rows of files, corpora, generators and templates, and the items of token ids that they become.

Read `sources`, then `items`; `workbench.rows` reads files.
"""
