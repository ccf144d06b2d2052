"""Attention sinks: where attention is dumped on one prompt (`attention_sinks`), what remains of it under other
conditions (`sink_conditions`), and how often it happens over many texts (`sink_rates`). Read them in this order.
They stand on `measures` (what is reduced and counted) and `samples` (texts of one length); `figures` draws the first.
"""
