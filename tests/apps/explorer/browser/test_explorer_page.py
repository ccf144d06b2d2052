"""The page as a researcher uses it, on the default model: mostly one page, which every test leaves as it was."""

import json
import re
import time

import pytest

from tests.apps.explorer.browser.actions import SHOWN, run, selection, turn, view

pytestmark = pytest.mark.browser
# In how many lines the text of each of some elements stands.
LINES = """all => all.map(one => {
  const range = document.createRange();
  range.selectNodeContents(one);
  return range.getClientRects().length;
})"""


@pytest.fixture(scope="module")
def first_page(shared):
    """One page on the first prompt, for all tests that need no fresh one, and the selection it began with."""
    page = shared()
    page.wait_for_selector("#details .js-plotly-plot .main-svg")
    page.wait_for_function("() => (document.querySelector('#main-figure .js-plotly-plot').layout.meta || {}).axes")
    page.wait_for_selector(".job", state="detached")
    return page, page.input_value("#prompt"), selection(page)


@pytest.fixture
def same_page(first_page, shared):
    """That page as it was at first: its prompt, its selection, nothing hovered."""
    page, text, chosen = first_page
    page.mouse.move(5, 5)
    if page.evaluate(SHOWN) != text:
        page.fill("#prompt", text)
        page.press("#prompt", "Control+Enter")
        page.wait_for_function(f"text => {SHOWN} === text", arg=text)
        page.wait_for_function("n => document.querySelectorAll('#tokens [data-pos]').length === n", arg=20)
    page.evaluate("chosen => dash_clientside.set_props('selection', { data: chosen })", chosen)
    page.wait_for_selector(f"#tokens [data-pos='{chosen['pos']}'].selected")
    page.wait_for_selector("#main-figure:not(.stale) .js-plotly-plot .nsewdrag")
    yield page
    shared.check()


def test_first_paint_has_a_computed_prompt_with_something_selected(same_page, screenshots):
    page = same_page
    page.wait_for_selector("#details .js-plotly-plot .main-svg")
    assert page.locator("#tokens [data-pos]").count() == 20
    assert page.locator("#tokens .selected").count() == 1
    assert "dequantised Q4_1" in page.inner_text("#model-line")
    page.click("#selfcheck")
    page.wait_for_selector(".mantine-Popover-dropdown table")
    assert "attention rows sum to 1" in page.inner_text(".mantine-Popover-dropdown table")
    page.screenshot(path=screenshots / "first-paint.png")
    page.keyboard.press("Escape")
    page.wait_for_selector(".mantine-Popover-dropdown table", state="hidden")


def test_the_token_strip_carries_the_selection(same_page):
    page = same_page
    page.click("#tokens [data-pos='2']")
    page.wait_for_selector("#tokens [data-pos='2'].selected")
    page.wait_for_function("() => document.querySelector('#headline').textContent.includes('token 2')")
    milliseconds = page.evaluate("() => window.workbenchSelectionMilliseconds")
    print(f"selection shown in the browser after {milliseconds:.1f} ms")
    page.locator("body").press("Escape")
    page.wait_for_function("() => !document.querySelector('#tokens .selected')")


WORDS = """() => { const gd = document.querySelector('#main-figure .js-plotly-plot');
  const [low, high] = gd._fullLayout.xaxis.range, values = gd.layout.meta.x_values;
  const texts = Array.from(gd.querySelectorAll('.heatmap-label text, .heatmap-label')).map((one) => one.textContent);
  return { shown: values.filter((_, at) => at > low && at < high), values, words: new Set(texts.filter(Boolean)).size,
           said: document.querySelector('#part-shown').textContent } }"""


OF_POSITION = "pos => new RegExp(`position ?${pos}(?!\\d)`).test(document.querySelector('#details').textContent)"


def test_the_lens_has_words_in_its_cells_and_shows_the_selected_token(same_page, screenshots):
    """With more tokens than there is room for, a window of them that is said, follows the selection and can be moved;
    with more than are read out at once (32), the lens of another window."""
    page, text = same_page, "One two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    run(page, text + " fifteen, sixteen, seventeen, eighteen, nineteen,")
    view(page, "Logit lens")
    n = page.locator("#tokens [data-pos]").count()
    assert 22 <= n <= 32
    for pos in (n - 1, 2):
        page.click(f"#tokens [data-pos='{pos}']")
        page.wait_for_function(f"() => ({WORDS})().shown.includes({pos})")
        found = page.evaluate(WORDS)
        assert found["words"] > 5 and len(found["shown"]) < n and found["values"] == list(range(n))
        assert f"tokens {found['shown'][0]} to {found['shown'][-1]} of {n}" in found["said"]
    run(page, text + " fifteen" + ", one, two, three, four, five, six, seven, eight" * 2)
    n = page.locator("#tokens [data-pos]").count()
    assert n >= 48
    for pos in (5, 20, n - 1):
        page.click(f"#tokens [data-pos='{pos}']")
        page.wait_for_function(f"() => {{ const v = ({WORDS})().values; return v.length === 16 && v.includes({pos}) }}")
        page.wait_for_function(OF_POSITION, arg=pos)
        found = page.evaluate(WORDS)
        assert found["words"] > 5 and pos in found["shown"] and len(found["values"]) == 16
    page.screenshot(path=screenshots / "lens-window.png")
    page.get_by_label("tokens before these").click()
    page.wait_for_function(f"() => ({WORDS})().values.includes({n - 17})")
    page.wait_for_function(OF_POSITION, arg=n - 17)
    assert selection(page)["pos"] == n - 17


def test_a_token_clicked_while_a_part_without_it_is_on_its_way_is_followed(same_page):
    """What is drawn still has the clicked token, what comes has not: it was asked for before the click."""
    page, held, is_held = same_page, [], True

    def hold(route):
        if not is_held or "main-figure.data-stands" not in json.loads(route.request.post_data)["output"]:
            return route.continue_()
        held.append((route, route.fetch()))

    view(page, "Logit lens")
    page.route(lambda url: "_dash-update-component" in url, hold)
    run(page, "One, two, three, four, five, six, seven, eight, nine, ten" * 2 + " eleven twelve")
    last = page.locator("#tokens [data-pos]").count() - 1
    assert last >= 32  # more than are read out at once
    page.wait_for_selector(f"#tokens [data-pos='{last}'].selected")
    while not held:
        page.wait_for_timeout(50)
    page.click("#tokens [data-pos='5']")
    page.wait_for_selector("#tokens [data-pos='5'].selected")
    is_held = False
    for route, answer in held:
        route.fulfill(response=answer)
    page.wait_for_function(f"() => {{ const v = ({WORDS})().values; return v.length === 16 && v.includes(5) }}")
    page.unroute_all(behavior="ignoreErrors")


def test_a_form_reads_as_a_sentence_and_takes_what_is_selected(same_page):
    page = same_page
    page.click("#tokens [data-pos='9']")
    turn(page, "Attention knockout")
    page.wait_for_selector("#main-message .plan")
    assert "Take from the last token the sight of the first token and of the rest" in page.inner_text("#main-message")
    page.get_by_role("button", name="take token 9").first.click()
    page.wait_for_function("() => document.querySelector('#main-message').textContent.includes('Take from token 9 ')")
    assert page.locator("#params-form .more[open]").count() == 0 and page.locator("#params-form .asked").count() == 3
    turn(page, "Causal check")  # filled in from the selection
    chosen = selection(page)
    page.wait_for_function(
        "said => document.querySelector('#main-message').textContent.includes(said)",
        arg=f"Remove L{chosen['layer']}H{chosen['head']} by zero and measure log-probability.",
    )
    page.click("#card-open")
    page.wait_for_selector(".card-table")
    card = page.inner_text(".card")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert set(page.eval_on_selector_all(".card-table td.number", LINES)) <= {0, 1}  # in two it is another number
        assert page.eval_on_selector(".card-table", "card => card.scrollWidth <= card.clientWidth")
    page.set_viewport_size({"width": 1280, "height": 800})
    assert "From token 9 ·capital it looks at" in card and "Its share of this prediction" in card
    page.locator(".card-table [data-turn='induction-on-prompt']").first.click()
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Induction on this prompt'")
    page.wait_for_selector(".card", state="detached")
    view(page, "Logit lens")


def test_the_tour_goes_through_five_steps_on_what_is_found(same_page, screenshots):
    page = same_page
    page.click("#tour")
    page.wait_for_selector(".tour[open] >> text=Tour, 1 of 5")
    assert "Back leads to your own prompt" in page.inner_text(".tour p")  # it has put its example in its place
    page.wait_for_function(f"() => {SHOWN}.includes('Tavern')")
    page.get_by_role("button", name="Next").click()
    page.wait_for_function("() => /L\\d+H\\d+ looks most/.test(document.querySelector('#said').textContent)")
    page.get_by_role("button", name="Next").click()
    page.wait_for_selector(".tour >> text=which the sentence names, is selected now")
    chosen = selection(page)
    assert f"L{chosen['layer']}H{chosen['head']} looks most" in page.inner_text("#said")
    page.screenshot(path=screenshots / "tour.png")
    page.get_by_role("button", name="Next").click()
    page.wait_for_selector("#params-form.toured")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="End").click()
    assert page.locator(".tour[open]").count() == 0 and page.locator(".toured").count() == 0
    page.click("#tour")
    page.evaluate("() => document.activeElement.blur()")  # Escape closes it all the same
    page.keyboard.press("Escape")
    page.wait_for_selector(".tour", state="hidden")
    assert page.locator("main").count() == 1 and page.locator("h1").count() == 1


HOSTILE = ["<img src=x onerror=window.hacked=1> <b>bold</b> & $x^2$ %{z}", "a\u202eb\u200bc `${1}` </script>"]


@pytest.mark.parametrize("text", HOSTILE)
def test_prompt_text_is_data(same_page, text):
    page = same_page
    page.fill("#prompt", text)
    page.press("#prompt", "Control+Enter")
    page.wait_for_function(f"text => {SHOWN} === text", arg=text)
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length !== 20")
    view(page, "Logit lens")
    assert page.evaluate("() => window.hacked") is None
    assert page.locator("#tokens img, #tokens b, .js-plotly-plot img, .js-plotly-plot svg b").count() == 0
    assert "\u202e" not in page.inner_text("#tokens")


def test_dark_and_narrow(same_page, open_page, screenshots):
    page = same_page
    page.set_viewport_size({"width": 1024, "height": 768})
    page.click("#scheme-toggle")
    page.wait_for_selector("[data-mantine-color-scheme=dark]")
    page.wait_for_timeout(800)
    page.screenshot(path=screenshots / "dark-1024.png")
    size = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size[0] <= 1024 and size[1] <= 768
    page.click("#scheme-toggle")
    page.wait_for_selector("[data-mantine-color-scheme=light]")
    page.set_viewport_size({"width": 1280, "height": 800})
    other = open_page('#prompt=Hello&view={"name":"attention-sinks","figure":0}', width=1024, height=768)
    other.wait_for_function(
        "() => { const tab = document.querySelector('#tabs [aria-selected=true]');"
        " const seen = tab && tab.getBoundingClientRect(), row = tab && tab.parentElement.getBoundingClientRect();"
        " return tab && tab.textContent.includes('sinks') && seen.right <= row.right + 1 }"
    )


def test_figures_come_to_rest_at_any_size(same_page):
    """What is fitted takes room itself: at some sizes fewer and more took turns for ever, and the page stood still."""
    page = same_page
    page.evaluate("""() => { window.drawn = 0; document.querySelectorAll('.js-plotly-plot').forEach(
      (gd) => gd.on('plotly_afterplot', () => { window.drawn += 1; })) }""")
    at_rest = "() => { const rests = window.drawn === window.last; window.last = window.drawn; return rests }"
    turn(page, "Causal tracing")
    page.wait_for_selector("#main-message .plan")
    for width, height in ((390, 844), (1280, 800)):
        page.set_viewport_size({"width": width, "height": height})
        page.wait_for_timeout(150)
        page.wait_for_function(at_rest, polling=150, timeout=30_000)
        assert page.evaluate("() => document.documentElement.scrollWidth") == width
        assert page.evaluate("() => document.querySelector('.centre').clientWidth") > 350  # on a phone, too
    view(page, "Logit lens")


def test_the_page_does_not_scroll(same_page):
    page = same_page
    size = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size == [1280, 800]


def test_anything_is_found_by_its_name(same_page):
    page = same_page
    page.wait_for_function("() => dash_clientside.finder.shown")
    page.keyboard.press("Control+k")
    page.keyboard.type("l7 h2")
    page.wait_for_selector(".find li[aria-selected=true] >> text=L7H2")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#headline').textContent.includes('L7H2')")
    page.click("#find")
    page.keyboard.type("the model as")
    page.wait_for_selector(".find li[aria-selected=true] >> text=The model as a whole")
    page.keyboard.press("Enter")
    page.wait_for_selector(".card .pairs >> text=LlamaForCausalLM")
    page.wait_for_function(
        "() => getComputedStyle(document.querySelector('.card').closest('.mantine-Modal-content')).opacity === '1'"
    )
    sheet = page.inner_text(".card")
    assert "grouped queries: 9 heads read 3 key/value heads" in sheet and "rotary, base 100,000" in sheet
    assert "attention rows sum to 1" in sheet and "and no experts; expected" in sheet
    assert not serious_of(page, ".card")
    page.keyboard.press("Escape")
    page.wait_for_selector(".card", state="detached")
    page.click("#find")
    page.keyboard.type("runs")  # what is opened by a button of its own
    page.wait_for_selector(".find li[aria-selected=true] >> text=Runs")
    page.keyboard.press("Enter")
    page.wait_for_selector(".mantine-Modal-content >> text=Runs")
    page.keyboard.press("Escape")
    page.wait_for_selector(".mantine-Modal-content", state="detached")
    page.click("#find")
    page.keyboard.type("L99H0")
    page.wait_for_selector(".find p >> text=The model has layers 0 to 29, of heads 0 to 8.")
    page.keyboard.press("Escape")
    page.wait_for_selector(".find", state="hidden")
    assert "pos" in selection(page)  # Escape closed what was open and left the selection alone
    page.keyboard.press("Control+k")
    page.keyboard.type("does it matter")
    page.wait_for_selector(".find li >> text=Which heads matter over prompts")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(".find li[aria-selected=true] >> text=Which heads matter over prompts")
    page.keyboard.press("Enter")
    page.wait_for_function(
        "() => document.querySelector('#params-title').textContent === 'Which heads matter over prompts'"
    )
    assert page.inner_text(".room[aria-pressed=true]") == "Checks"
    titles = page.locator("#tabs [role=tab]:visible").all_inner_texts()
    assert titles == ["Causal check", "Change it and see", "Which heads matter over prompts"]
    page.keyboard.press("Control+k")
    page.keyboard.type("write parts token")  # words of its question, in an order of one's own
    page.wait_for_selector(".find li >> text=Direct logit attribution")
    page.keyboard.press("Escape")
    page.locator(".room", has_text="Explain").click()
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Explain'")
    page.locator(".room", has_text="Lens").click()
    page.wait_for_function("() => document.querySelector('#question').textContent.includes('at each depth')")
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Logit lens'")  # its first
    page.locator(".room", has_text="Checks").click()  # the one that was open there last
    page.wait_for_function(
        "() => document.querySelector('#params-title').textContent === 'Which heads matter over prompts'"
    )
    page.locator(".room", has_text="Neurons").click()  # no expert is opened on a model that has none
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Neurons'")
    quiet = page.locator("#tabs [role=tab].elsewhere:visible")
    assert quiet.all_inner_texts() == ["Experts", "Experts of one kind of text"]
    assert quiet.first.get_attribute("title") == "of what other models have"
    view(page, "Logit lens")


def test_arrows_move_the_selection(same_page):
    page = same_page
    page.wait_for_function("() => (document.querySelector('#main-figure .js-plotly-plot').layout.meta || {}).axes")
    page.click("#tokens [data-pos='4']")
    page.keyboard.press("ArrowLeft")
    page.wait_for_selector("#tokens [data-pos='3'].selected")
    before = selection(page)["depth"]
    page.keyboard.press("ArrowDown")
    page.wait_for_function("d => window.dash_clientside.spine.state.selection.depth === d - 1", arg=before)


def test_answers_are_small_and_fast(same_page):
    page = same_page
    answers = []

    def note(response):
        if "_dash-update-component" in response.url:
            answers.append(response)

    page.on("response", note)
    started = time.perf_counter()
    page.click("#tokens [data-pos='1']")
    page.wait_for_function("() => document.querySelector('#headline').textContent.includes('token 1 ')")
    print(f"details of another token after {time.perf_counter() - started:.3f} s")
    page.wait_for_timeout(1500)
    sizes = [
        (len(r.body()), round(r.request.timing["responseEnd"] - r.request.timing["requestStart"])) for r in answers
    ]
    print(f"answers (bytes, ms): {sizes}")
    assert sizes and max(size for size, _ in sizes) < 1_000_000


def serious_of(page, part=None):
    """What axe finds of a page, or of a part of it."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, context=part).response["violations"]
    nodes = lambda violation: [node["html"][:160] for node in violation["nodes"]]
    return [(one["id"], nodes(one)) for one in found if one["impact"] in ("serious", "critical")]


def test_no_serious_violation_of_accessibility(same_page):
    """Also while the panel still tells of the selection before."""
    page = same_page
    page.wait_for_selector("#details .js-plotly-plot .main-svg")
    page.wait_for_selector(".right:not(.before)")
    serious = serious_of(page)
    page.evaluate("() => document.querySelector('.right').classList.add('before')")
    serious += serious_of(page, ".right")
    page.evaluate("() => document.querySelector('.right').classList.remove('before')")
    assert not serious, json.dumps(serious, indent=1)


def test_no_button_sends_a_figure_away(same_page):
    page = same_page
    titles = page.locator("#main-figure .modebar-btn").evaluate_all("all => all.map(b => b.dataset.title || '')")
    assert titles and not [title for title in titles if "hare" in title or "loud" in title]


def test_nothing_is_loaded_from_elsewhere(same_page, explorer):
    hosts = same_page.evaluate("() => performance.getEntriesByType('resource').map(e => new URL(e.name).host)")
    assert set(hosts) == {re.match(r"http://([^/]+)/", explorer.address)[1]}


def test_hovering_shows_what_a_click_would_select(same_page):
    page = same_page
    page.wait_for_selector("#details .js-plotly-plot .main-svg")
    page.hover("#tokens [data-pos='5']")
    page.wait_for_selector("#main-figure .preview:not([hidden])")
    assert selection(page)["pos"] == 19  # a look is no choice
    # Every frame lies in its own figure, in the small ones too.
    page.wait_for_selector(".thumbs .preview:not([hidden])", state="attached")
    assert not page.evaluate("""() => Array.from(document.querySelectorAll('.preview:not([hidden])')).filter((one) => {
        const frame = one.getBoundingClientRect();
        const own = one.parentElement.querySelector('.js-plotly-plot').getBoundingClientRect();
        return frame.left < own.left - 3 || frame.right > own.right + 3 || frame.top < own.top - 3;
    }).map((one) => one.parentElement.outerHTML.slice(0, 80))""")
    page.mouse.move(5, 5)
    page.wait_for_selector("#main-figure .preview:not([hidden])", state="detached")


def test_the_page_is_light(same_page):
    page = same_page
    script = (
        "() => performance.getEntriesByType('resource').filter(e => !e.name.includes('_dash-update-component'))"
        ".map(e => [e.transferSize, e.decodedBodySize])"
    )
    loaded = page.evaluate(script)
    assert len(loaded) < 20, loaded  # with all that was asked for since; with the calls of a computed prompt 29
    sent, unpacked = map(sum, zip(*loaded, strict=True))
    print(f"the page before caching: {sent / 1e6:.2f} MB sent, {unpacked / 1e6:.2f} MB unpacked")
    assert sent < 5e6


def test_by_keyboard_alone(same_page, screenshots):
    page = same_page
    page.evaluate("() => document.activeElement.blur()")  # a tab that the test before has clicked has keys of its own
    page.locator("body").press("?")
    page.wait_for_selector("[role=dialog] table")
    page.keyboard.press("Escape")
    page.wait_for_selector("[role=dialog]", state="detached")
    for opener, popup in (
        ("#about", "#about-text h3"),
        ("#intervene", "[role=menuitem]"),
        (".model-name", ".card .pairs"),
    ):
        page.focus(opener)
        page.keyboard.press("Enter")
        page.wait_for_selector(popup)
        page.keyboard.press("Escape")
        page.wait_for_selector(popup, state="hidden")
        assert "pos" in selection(page)  # Escape closed what was open and left the selection alone
    page.focus("#prompt")
    page.keyboard.press("Control+a")
    page.keyboard.type("import numpy as")
    page.keyboard.press("Control+Enter")
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 4")
    page.focus("#tokens [data-pos='1']")
    page.keyboard.press("Enter")
    page.wait_for_selector("#tokens [data-pos='1'].selected")
    page.keyboard.press("m")
    page.wait_for_selector("body.maximised")
    page.screenshot(path=screenshots / "maximised.png")
    page.keyboard.press("Escape")
    page.wait_for_selector("body:not(.maximised)")
