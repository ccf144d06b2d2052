"""Small models of our own: a module with hook points, and circuits written into its weights by hand."""
