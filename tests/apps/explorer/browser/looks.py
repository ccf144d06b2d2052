"""What is wrong with a page as it stands, measured in the browser, and when it has come to rest. See `looks.js`."""

from pathlib import Path

_LOOKS = (Path(__file__).parent / "looks.js").read_text(encoding="utf-8")
PHONE = 760  # pixels; a narrower page scrolls downwards
# Nothing is drawn, told or typed any more between two looks, nothing says that it is on its way, and every figure is as
# large as its place.
_AT_REST = """() => {
  const plots = Array.from(document.querySelectorAll('.js-plotly-plot'));
  plots.forEach((gd) => {
    if (!gd.on || gd.dataset.counted) return;
    gd.dataset.counted = 'yes';
    gd.on('plotly_afterplot', () => { window.drawings = (window.drawings || 0) + 1; });
  });
  const fits = plots.every((gd) => !gd.closest('.dash-graph') || !gd.clientWidth || !gd._fullLayout
    || (Math.abs(gd._fullLayout.width - gd.clientWidth) < 2 && Math.abs(gd._fullLayout.height - gd.clientHeight) < 2));
  const smalls = Array.from(document.querySelectorAll('[data-thumb][data-seen=yes]'));
  const drawn = smalls.every((one) => one.textContent.trim() || one.querySelector('.main-svg')); // when there is time
  const now = [window.drawings, plots.length, document.body.textContent.length, innerWidth, innerHeight,
    document.querySelector('#main-figure').dataset.stands].join();
  const waits = document.querySelector('#main-figure.stale, .job, .right.before');
  const rests = now === window.stood && fits && drawn && !waits;
  window.stood = now;
  window.rested = rests ? (window.rested || 0) + 1 : 0;
  return window.rested > 1;
}"""
LONG = ("When", "Mary", "and", "John", "went", "to", "the", "store,", "Übertragungsgeschwindigkeit", "12345",
        "internationalization", "café", "\n", "def", "f(x):", "x**2", "日本語")  # fmt: skip


def rest(page, limit: float = 120_000) -> None:
    """Wait until the page stands still."""
    page.evaluate("() => { window.rested = 0; window.stood = null }")
    page.wait_for_function(_AT_REST, polling=150, timeout=limit)


def faults(page) -> list[str]:
    """What a person would see to be wrong, in sentences: what is still so a while later."""
    page.mouse.move(3, 3)
    is_phone = page.viewport_size["width"] < PHONE
    found = page.evaluate(_LOOKS, is_phone)
    for _ in range(3):
        if found:
            page.wait_for_timeout(500)
            rest(page)
            found = [fault for fault in page.evaluate(_LOOKS, is_phone) if fault in found]
    return found


def text_of(n: int, count) -> str:
    """A text of n tokens, long and foreign words among them. count: how many tokens a text has."""
    if n == 1:
        return "#2683"  # an id: a text may begin with a token of its own
    words = list(LONG[:1])
    while (
        count(" ".join([*words, LONG[len(words) % len(LONG)]])) <= n
    ):  # no text longer than the model reads is counted
        words.append(LONG[len(words) % len(LONG)])
    while count(" ".join(words)) < n:
        words.append("to")
    return " ".join(words)
