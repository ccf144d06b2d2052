"""Results as files: what they hold is checked before it is believed, and written whole or not at all.

A file may come from a stranger. Its bytes are read once, held against their seal where they have one, looked through
(`inspection`) before any value is touched, by another process first (`apart`), and only then decoded (`netcdf`); what
it says of itself is read by schema (`record`). `tables` are the tidy tables of a result, `formats` the endings that can
be written. What a result may hold at all says `plain`. Read `netcdf` first.
"""
