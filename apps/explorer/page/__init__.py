"""The page: its layout and parts, what a result looks like on it, and what arrives from a browser.

Nothing here is called by a browser: that are the callbacks. Read `layout`, `components`, `views`.
"""
