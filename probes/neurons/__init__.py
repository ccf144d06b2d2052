"""Neurons of MLPs: those of one layer that write most at a token, and what they promote (`neurons`)."""
