"""Loops that plain tensor code would spend too much memory or time on, each with its plain torch twin.

`proximity` holds the functions to call and their twins, `loops` the compiled form (numba, on the CPU), which is
imported only when it is used. Read `proximity`.
"""
