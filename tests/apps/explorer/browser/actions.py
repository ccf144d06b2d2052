"""What a person does on the page, and waits for."""

import re

SHOWN = "new URLSearchParams(location.hash.slice(1)).get('prompt')"  # the prompt whose results are shown


def run(page, text: str) -> None:
    """Type a prompt, press Ctrl+Enter, and wait until its tokens are shown."""
    page.fill("#prompt", text)
    page.press("#prompt", "Control+Enter")
    page.wait_for_function(
        "text => Array.from(document.querySelectorAll('#tokens [data-pos]')).slice(1)"
        ".map(chip => chip.firstChild.textContent).join('') === text",
        arg=text.replace(" ", "·").replace("\n", "↵"),
    )


def turn(page, title: str) -> None:
    """Press the tab of a view, in its room."""
    tab = page.locator("#tabs [role=tab]").filter(has_text=re.compile(f"^{re.escape(title)}$"))
    if not tab.is_visible():
        page.locator(f".room[data-room='{tab.get_attribute('data-room')}']").click()
    tab.click()


def view(page, title: str) -> None:
    """Turn to a view and wait until it is drawn."""
    turn(page, title)
    page.wait_for_function("t => document.querySelector('#params-title').textContent === t", arg=title)
    page.wait_for_function(
        "() => !document.querySelector('#main-figure.stale') && !document.querySelector('#main-message > div')",
        timeout=240_000,
    )
    page.wait_for_timeout(400)


def wait_for_title(page, holder: str, word: str) -> None:
    """Wait until the figure inside an element has a title with these words, in however many lines."""
    page.wait_for_function(
        "([holder, word]) => { const gd = document.querySelector(holder + ' .js-plotly-plot');"
        " return gd && gd.layout && gd.layout.title && gd.layout.title.text.replaceAll('<br>', ' ').includes(word) }",
        arg=[holder, word],
    )


def place_of(page, holder: str, x: int, y: int) -> list[float]:
    """Where a cell of a heatmap is on the screen, by its drawn coordinates."""
    return page.evaluate(
        "([holder, x, y]) => { const gd = document.querySelector(holder).querySelector('.js-plotly-plot');"
        " const f = gd._fullLayout; const r = gd.getBoundingClientRect();"
        " return [r.x + f.xaxis._offset + f.xaxis.d2p(x), r.y + f.yaxis._offset + f.yaxis.d2p(y)] }",
        [holder, x, y],
    )


def click_cell(page, holder: str, x: int, y: int) -> None:
    """Click the cell of a heatmap by its drawn coordinates."""
    box = place_of(page, holder, x, y)
    page.mouse.move(5, 5)
    page.wait_for_selector(f"{holder} .hoverlayer .hovertext", state="detached")
    page.mouse.move(*box)
    page.wait_for_selector(f"{holder} .hoverlayer .hovertext", state="attached")  # a figure takes no click before that
    page.mouse.click(*box)


def selection(page) -> dict:
    """The selection that the page holds."""
    return page.evaluate("() => window.dash_clientside.spine.state.selection")
