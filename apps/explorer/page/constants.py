"""What the scripts of the page must know of Python: it is written into the page, and stands in one place only."""

import json

from apps.explorer.page.alignment import ALIGNED, MOST
from apps.explorer.page.examples import CHATS, EXAMPLES, INDUCTION
from apps.explorer.page.graphs import SELECTED
from apps.explorer.page.selection import COLUMNS
from apps.explorer.page.stores import POLL, PRESSED

__all__ = ["constants"]


def constants() -> str:
    """As JSON, for `data-workbench` of the page's root.

    poll: milliseconds between two looks. selected: the colour of the selection. columns: those of a table that a click
    on a row selects. pressed: kinds of buttons whose clicks the scripts read, with the store each is written to.
    tour: the text that it runs. chats: examples that are a user's message. pins: how many prompts are pinned
    at most, and by what they are aligned.
    """
    known = {"poll": POLL, "selected": SELECTED, "columns": COLUMNS, "pressed": list(PRESSED.items())}
    known |= {"tour": INDUCTION, "chats": [EXAMPLES[name] for name in CHATS]}
    return json.dumps(known | {"pins": {"most": MOST, "aligned": list(ALIGNED.items())}})
