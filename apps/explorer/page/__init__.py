"""The page: its layout and parts, what a result looks like on it, and what arrives from a browser.

Nothing here is called by a browser: that are the callbacks. Read `state` (what a page sends, as typed values), `news`
(what it is told), `layout` with `left`, `centre` and `stores`, then `components` and `views`.
"""
