"""The syntax tree of a source, read safely beside other threads."""

import ast
import time

__all__ = ["parse"]

_TRIES = 100


def parse(source: bytes | str) -> ast.Module:
    """As `ast.parse`, which in Python 3.11 fails at random while another thread parses.

    The interpreter counts the depth of all threads' trees in one number; where garbage is collected in between, each
    finds the other's (SystemError, "AST constructor recursion depth mismatch"; python/cpython issue 106905).
    """
    for _ in range(_TRIES - 1):
        try:
            return ast.parse(source)
        except SystemError:
            time.sleep(0.001)
    return ast.parse(source)
