"""The command line: `workbench load | list | describe | run | explain | batch | compare | models | train | import |
bench | mcp | app`.

`shell` finds the command and turns what goes wrong into a sentence and an exit code; `commands/` holds one file a
command, `report/` what is printed and saved, and the rest is what commands share: options, parameters, interventions,
progress, signals. Read `shell`, then `commands/run`, then `execution`.
"""

from apps.cli.shell import main

__all__ = ["main"]
