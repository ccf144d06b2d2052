"""The web server: what listens (`server`), who may ask (`safety`), and what is sent compressed (`compression`).

It knows HTTP and no analysis. Read `server`, then `safety`.
"""
