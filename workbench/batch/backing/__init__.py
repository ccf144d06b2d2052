"""Where the files of a store lie: a folder that many machines may see, or a place of an object store.

`backing` says what a store needs of either, `folder` and `objects` are the two, `address` tells which one is meant.
Read them in this order.
"""
