"""One file a command: `arguments(parser)` says what it takes, `command(arguments)` does it and returns the exit code.

A file is imported when its command is typed, and imports what computes only when it is carried out, so that help is
there at once. Read `load`, the shortest, then `run`.
"""
