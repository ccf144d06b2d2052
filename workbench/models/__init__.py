"""Models: loading, the bundled default, the self-check."""
