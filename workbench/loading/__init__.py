"""Where models come from: `load()` and `wrap()` (`pretrained`), the bundled default, toys by name.

A Hugging Face model is seen through a TransformerBridge (`bridge`, the only file that knows the library), and what it
does is measured when it is loaded (`selfcheck`). What is read from files and kept lies in `files/`; `weights` follows
what becomes of weights. Read `pretrained`, then `bridge`.
"""
