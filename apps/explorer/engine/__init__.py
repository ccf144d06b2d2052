"""The engine: models that are loaded, what was computed on them, and what is on its way. It knows no browser.

A test or a notebook can drive it: `Engine(settings, catalog)`, `request()`, `submit()`, `found()`. Read `request`
(what a run asks for), `engine`, `hosted`, then `jobs`, `queue` and `worker` (one a model), `cache`, and `states` (what
a click is recomputed from).
"""
