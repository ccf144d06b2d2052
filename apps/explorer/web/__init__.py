"""The web server: what listens (`server`), who may ask (`safety`), what may be asked (`requests`), and what is sent
compressed (`compression`).

It knows HTTP and no analysis. Read `server`, then `safety`.
"""
