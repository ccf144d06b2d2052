"""Induction heads: those that look at what followed the current token the last time.

The stimulus (`probes/stimuli.py`) is random tokens of which nothing but the repeat says what comes next;
`repeat_attention` reduces patterns to scores; `induction_heads` measures with them on the stimulus and
`induction_on_prompt` on the user's prompt.
Read them in this order; `figures` draws both.
"""
