"""Active-dormant heads: asleep on one kind of text, at work on another, and whether removing them costs anything there.

`active_dormant` asks it of `texts`, by what `activity` measures of a head on a text, which heads `contrast` picks, and
the losses of `ablation`; `table` is the result, `verdict` says it, `figures` draws it. Read them in this order.
"""
