"""Small transformers of our own (`transformer`) and circuits written into their weights by hand (`circuits`)."""
