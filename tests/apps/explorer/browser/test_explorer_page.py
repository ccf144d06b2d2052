"""The page as a researcher uses it, in a real browser on the default model."""

import json
import re
import time

import pytest

pytestmark = pytest.mark.browser


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
    """Wait until the figure inside an element has a title with this word."""
    page.wait_for_function(
        "([holder, word]) => { const gd = document.querySelector(holder + ' .js-plotly-plot');"
        " return gd && gd.layout && gd.layout.title && gd.layout.title.text.includes(word) }",
        arg=[holder, word],
    )


def click_cell(page, holder: str, x: int, y: int) -> None:
    """Click the cell of a heatmap by its drawn coordinates."""
    box = page.evaluate(
        "([holder, x, y]) => { const gd = document.querySelector(holder).querySelector('.js-plotly-plot');"
        " const f = gd._fullLayout; const r = gd.getBoundingClientRect();"
        " return [r.x + f.xaxis._offset + f.xaxis.d2p(x), r.y + f.yaxis._offset + f.yaxis.d2p(y)] }",
        [holder, x, y],
    )
    page.mouse.move(5, 5)
    page.wait_for_selector(f"{holder} .hoverlayer .hovertext", state="detached")
    page.mouse.move(*box)
    page.wait_for_selector(f"{holder} .hoverlayer .hovertext", state="attached")  # a figure takes no click before that
    page.mouse.click(*box)


def selection(page) -> dict:
    """The selection that the page holds."""
    return page.evaluate("() => window.dash_clientside.spine.state.selection")


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


def test_first_paint_has_a_computed_prompt_with_something_selected(open_page, screenshots):
    page = open_page()
    page.wait_for_selector("#details .js-plotly-plot .main-svg")
    assert page.locator("#tokens [data-pos]").count() == 20
    assert page.locator("#tokens .selected").count() == 1
    assert "dequantised Q4_1" in page.inner_text("#model-line")
    page.click("#selfcheck")
    page.wait_for_selector(".mantine-Popover-dropdown table")
    assert "attention rows sum to 1" in page.inner_text(".mantine-Popover-dropdown table")
    page.screenshot(path=screenshots / "first-paint.png")


def test_a_prompt_is_read_in_the_lens_and_a_head_shows_its_pattern(open_page, screenshots):
    page = open_page()
    run(page, "The capital of France is")
    view(page, "Logit lens")
    page.wait_for_function("() => document.querySelector('#said').textContent.includes(\"' Paris'\")")
    click_cell(page, "#main-figure", 5, 30)
    page.wait_for_function("() => document.querySelector('#details').textContent.includes('·Paris')")
    assert selection(page)["depth"] == 30 and selection(page)["pos"] == 5
    page.screenshot(path=screenshots / "lens.png")
    view(page, "Induction heads")
    click_cell(page, "#main-figure", 4, 3)
    page.wait_for_function("() => document.querySelector('#details').textContent.includes('Attention of L3H4')")
    assert selection(page)["layer"] == 3 and selection(page)["head"] == 4
    page.screenshot(path=screenshots / "heads.png")


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
    assert "From token 9 ·capital it looks at" in card and "Its share of this prediction" in card
    page.locator(".card-table [data-turn='induction-on-prompt']").first.click()
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Induction on this prompt'")
    page.wait_for_selector(".card", state="detached")
    view(page, "Logit lens")


def test_the_tour_goes_through_five_steps_on_what_is_found(same_page, screenshots):
    page = same_page
    page.click("#tour")
    page.wait_for_selector(".tour[open] >> text=Tour, 1 of 5")
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
    assert page.locator("main").count() == 1 and page.locator("h1").count() == 1


def test_bad_input_is_said_and_loses_nothing(open_page, screenshots):
    page = open_page()
    run(page, "Monday, Tuesday, Wednesday,")
    before = page.locator("#tokens [data-pos]").count()
    page.fill("#prompt", "")
    page.click("#run")
    page.wait_for_selector(".notice")
    assert "empty prompt" in page.inner_text(".notice")
    assert page.locator("#tokens [data-pos]").count() == before
    page.fill("#prompt", "word " * 8200)
    page.press("#prompt", "Control+Enter")
    page.wait_for_selector(".notice >> nth=1")
    assert "8192" in page.locator(".notice").nth(1).inner_text()
    assert page.input_value("#prompt").startswith("word ")
    assert page.locator("#tokens [data-pos]").count() == before
    page.screenshot(path=screenshots / "bad-input.png")
    page.get_by_role("button", name="Dismiss").first.click()
    page.wait_for_function("() => document.querySelectorAll('.notice').length === 1")


SHOWN = "new URLSearchParams(location.hash.slice(1)).get('prompt')"  # the prompt whose results are shown
HOSTILE = ["<img src=x onerror=window.hacked=1>", "<b>bold</b> & $x^2$ %{z}", "a\u202eb\u200bc", "`${1}` </script>"]


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


def test_two_windows_get_their_own_answers(open_page):
    one, two = open_page(), open_page()
    one.fill("#prompt", "The capital of France is")
    two.fill("#prompt", "import numpy as")
    one.press("#prompt", "Control+Enter")
    two.press("#prompt", "Control+Enter")
    for page, n, answer in ((one, 6, "' Paris'"), (two, 4, "' np'")):
        view(page, "Logit lens")
        page.wait_for_function("n => document.querySelectorAll('#tokens [data-pos]').length === n", arg=n)
        page.wait_for_function("a => document.querySelector('#said').textContent.includes(a)", arg=answer)


def test_dark_and_narrow(open_page, screenshots):
    page = open_page(width=1024, height=768)
    page.click("#scheme-toggle")
    page.wait_for_selector("[data-mantine-color-scheme=dark]")
    page.wait_for_timeout(800)
    page.screenshot(path=screenshots / "dark-1024.png")
    size = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size[0] <= 1024 and size[1] <= 768
    other = open_page('#prompt=Hello&view={"name":"attention-sinks","figure":0}', width=1024, height=768)
    other.wait_for_function(
        "() => { const tab = document.querySelector('#tabs [aria-selected=true]');"
        " const seen = tab && tab.getBoundingClientRect(), row = tab && tab.parentElement.getBoundingClientRect();"
        " return tab && tab.textContent.includes('sinks') && seen.right <= row.right + 1 }"
    )


def test_the_page_does_not_scroll(same_page):
    page = same_page
    size = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.scrollHeight]")
    assert size == [1280, 800]


def test_a_toy_runs_from_token_ids(open_page, screenshots):
    page = open_page()
    page.fill("#prompt", "3 7 9 3")
    page.click("#model")
    page.get_by_role("option", name="toy-induction").click()
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 4")
    page.screenshot(path=screenshots / "toy.png")


def test_a_late_look_does_not_end_the_looking_for_a_newer_run(open_page):
    page = open_page()
    held = []

    def hold(route):
        """Keep back one answer that found nothing to do."""
        answer = route.fetch()
        if not held and "idle.data" in route.request.post_data and answer.json()["response"]["idle"]["data"]:
            held.append((route, answer))
        else:
            route.fulfill(response=answer)

    page.wait_for_function("() => (document.querySelector('#main-figure .js-plotly-plot').layout.meta || {}).axes")
    page.wait_for_selector(".job", state="detached")
    page.wait_for_timeout(1000)  # it has come to rest
    page.route(lambda url: "_dash-update-component" in url, hold)
    page.click("#tokens [data-pos='2']")  # wakes it for one look
    for _ in range(200):
        page.wait_for_timeout(50)
        if held:
            break
    route, answer = held[0]
    page.fill("#prompt", "Five words of another text")
    with page.expect_response(lambda r: '"output":"..asked.data' in r.request.post_data.replace(" ", "")):
        page.click("#run")
    route.fulfill(response=answer)
    page.wait_for_function("() => document.querySelector('#tokens').textContent.includes('another')")
    page.unroute_all(behavior="ignoreErrors")


def test_anything_is_found_by_its_name(same_page):
    page = same_page
    page.wait_for_function("() => dash_clientside.finder.shown")
    page.keyboard.press("Control+k")
    page.keyboard.type("l7h2")
    page.wait_for_selector(".find li[aria-selected=true] >> text=L7H2")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#headline').textContent.includes('L7H2')")
    page.click("#find")
    page.keyboard.type("L99H0")
    page.wait_for_selector(".find p >> text=The model has layers 0 to 29, of heads 0 to 8.")
    page.keyboard.press("Escape")
    page.wait_for_selector(".find", state="hidden")
    assert "pos" in selection(page)  # Escape closed what was open and left the selection alone
    page.keyboard.press("Control+k")
    page.keyboard.type("does it matter")
    page.wait_for_selector(".find li >> text=Which heads matter here")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector(".find li[aria-selected=true] >> text=Which heads matter here")
    page.keyboard.press("Enter")
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Which heads matter here'")
    assert page.inner_text(".room[aria-pressed=true]") == "Checks"
    titles = page.locator("#tabs [role=tab]:visible").all_inner_texts()
    assert titles == ["Causal check", "Change it and see", "Which heads matter here"]
    page.locator(".room", has_text="Lens").click()
    page.wait_for_function("() => document.querySelector('#question').textContent.includes('at each depth')")
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


def test_no_serious_violation_of_accessibility(same_page):
    from axe_playwright_python.sync_playwright import Axe

    axe = Axe()
    page = same_page
    page.wait_for_selector("#details .js-plotly-plot .main-svg")
    found = axe.run(page).response["violations"]
    serious = [
        (v["id"], [n["html"][:160] for n in v["nodes"]]) for v in found if v["impact"] in ("serious", "critical")
    ]
    assert not serious, json.dumps(serious, indent=1)


def test_no_button_sends_a_figure_away(same_page):
    page = same_page
    titles = page.locator("#main-figure .modebar-btn").evaluate_all("all => all.map(b => b.dataset.title || '')")
    assert titles and not [title for title in titles if "hare" in title or "loud" in title]


def test_nothing_is_loaded_from_elsewhere(same_page, explorer):
    hosts = same_page.evaluate("() => performance.getEntriesByType('resource').map(e => new URL(e.name).host)")
    assert set(hosts) == {re.match(r"http://([^/]+)/", explorer.address)[1]}


def test_a_link_shows_the_same_in_a_fresh_context(open_page, screenshots):
    page = open_page()
    run(page, "import numpy as")
    view(page, "Logit lens")
    page.get_by_text("entropy", exact=True).click()
    wait_for_title(page, "#main-figure", "Entropy")
    click_cell(page, "#main-figure", 2, 7)
    page.wait_for_function("() => decodeURIComponent(location.hash).includes('\"depth\":7')")
    fragment = page.evaluate("() => location.hash")
    assert "token" not in page.url
    other = open_page(fragment)
    other.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 4")
    wait_for_title(other, "#main-figure", "Entropy")
    other.wait_for_selector("#tokens [data-pos='2'].selected")
    assert other.input_value("#prompt") == "import numpy as"
    assert {k: v for k, v in selection(other).items() if k in ("pos", "depth")} == {"pos": 2, "depth": 7}
    other.screenshot(path=screenshots / "link.png")


def test_a_link_to_something_else_says_so(open_page):
    page = open_page("#model=unheard-of&prompt=Hello+there&select=%7B%22pos%22%3A99%7D&view=broken", wait=False)
    page.wait_for_selector(".notice >> nth=1")
    said = page.inner_text("#notice-list")
    assert "unheard-of" in said and "'view'" in said
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 3")


@pytest.mark.parametrize("model", ["toy-induction", pytest.param("smollm2-135m", marks=pytest.mark.slow)])
def test_every_view_draws_and_is_looked_at(model, open_page, screenshots):
    """Studies, which are started by hand, show their Start button; what is of other models says so."""
    page = open_page(
        f"#model={model}&prompt={'3 7 9 5 3 7 9 2' if model == 'toy-induction' else 'The capital of Spain is'}"
    )
    titles = page.locator("#tabs [role=tab]").evaluate_all("tabs => tabs.map(tab => tab.textContent)")
    assert len(titles) > 30
    for title in titles:
        print(title, flush=True)  # the last one is the one that did not come
        turn(page, title)
        page.wait_for_function("t => document.querySelector('#params-title').textContent === t", arg=title)
        page.wait_for_function(
            "() => !document.querySelector('#main-figure.stale') && (!document.querySelector('#main-message > div')"
            " || (document.querySelector('#main-message button') || document.querySelector('#main-message').textContent"
            ".includes('for other models')) && !document.querySelector('.job'))",
            timeout=240_000,
        )
        page.wait_for_timeout(250)  # the line under the tab has arrived
        name = re.sub(r"[^a-z]+", "-", title.lower()).strip("-")
        page.screenshot(path=screenshots / f"view-{name}.png")


def test_exports_and_code(open_page):
    page = open_page()
    view(page, "Logit lens")
    for title, ending in (("Data (CSV)", ".csv.zip"), ("Data (netCDF)", ".nc"), ("Picture (SVG)", ".svg")):
        page.get_by_role("button", name="Export").click()
        with page.expect_download() as download:
            page.get_by_role("menuitem", name=title).click()
        assert download.value.suggested_filename.endswith(ending)
    picture = download.value.path().read_text(encoding="utf-8")
    assert "Prompt: " in picture and "Model: smollm2-135m" in picture  # what the page says beside it
    page.get_by_role("button", name="Export").click()
    page.get_by_role("menuitem", name="Python code").click()
    page.wait_for_selector("pre.code")
    code = page.inner_text("pre.code")
    assert "= LogitLens(" in code and ").run(" in code
    page.keyboard.press("Escape")


def test_two_prompts_side_by_side(open_page, screenshots):
    page = open_page()
    view(page, "Logit lens")
    page.get_by_text("Compare with").click()
    page.fill("#other", "The capital of Spain is Madrid. The capital of Italy is Rome. The capital of Spain is")
    page.click("#run")
    page.wait_for_selector("#tokens-b [data-pos='19']")
    page.wait_for_function("() => document.querySelectorAll('#main-figure .js-plotly-plot .nsewdrag').length === 2")
    page.click("#tokens-b [data-pos='12']")
    page.wait_for_selector("#tokens [data-pos='12'].selected")
    page.wait_for_timeout(500)
    page.screenshot(path=screenshots / "compare.png")


def test_an_intervention_is_held_against_the_intact_run(open_page, screenshots):
    page = open_page()
    view(page, "Induction heads")
    click_cell(page, "#main-figure", 6, 18)
    page.wait_for_function("() => document.querySelector('#headline').textContent.includes('L18H6')")
    page.click("#intervene")
    page.get_by_role("menuitem", name="without L18H6", exact=True).click()
    page.wait_for_selector("#edit-list .chip")
    page.wait_for_selector("#tokens-b [data-pos]")
    view(page, "Logit lens")
    wait_for_title(page, "#other-holder", "(intact)")
    page.screenshot(path=screenshots / "intervention.png")
    page.locator("#compare-mode").get_by_text("difference", exact=True).click()
    wait_for_title(page, "#main-figure", "this run minus the intact one")
    page.wait_for_function("() => document.querySelector('#said').textContent.includes('Largest change')")
    axis = page.evaluate("() => document.querySelector('#main-figure .js-plotly-plot').layout.coloraxis")
    assert axis["cmin"] == -axis["cmax"] < 0
    page.screenshot(path=screenshots / "difference.png")
    page.wait_for_function("() => decodeURIComponent(location.hash).includes('edits=[\"L18H6\"]&compare=difference')")
    other = open_page(page.evaluate("() => location.hash"))
    wait_for_title(other, "#main-figure", "this run minus the intact one")
    page.get_by_role("button", name="Take back: without L18H6").click()
    page.wait_for_selector("#tokens-b [data-pos]", state="detached")


def test_back_undoes_a_step_and_a_visit_is_kept_and_sent(open_page, tmp_path):
    page = open_page("#model=toy-induction&prompt=3+7+9+5+3+7")
    chosen = "pos => dash_clientside.spine.state.selection.pos === pos"
    tokens = "n => document.querySelectorAll('#tokens [data-pos]').length === n"
    steps = "n => document.querySelector('#visit-open').textContent === `Visit (${n})`"
    page.wait_for_function(steps, arg=1)
    for pos in (1, 3):
        page.wait_for_timeout(1100)  # what follows within a second belongs to one step
        page.click(f"#tokens [data-pos='{pos}']")
        page.wait_for_function(chosen, arg=pos)
    page.wait_for_timeout(1100)
    view(page, "Induction on this prompt")
    page.wait_for_function(steps, arg=2)
    page.fill("#prompt", "5 5 7 5")
    page.press("#prompt", "Control+Enter")
    page.wait_for_function(tokens, arg=4)
    page.wait_for_function(steps, arg=3)
    page.go_back()
    page.wait_for_function(tokens, arg=6)
    assert page.input_value("#prompt") == "3 7 9 5 3 7"
    page.go_back()
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Logit lens'")
    assert selection(page)["pos"] == 3
    page.go_back()
    page.wait_for_function(chosen, arg=1)
    page.go_forward()
    page.wait_for_function(chosen, arg=3)
    page.click("#visit-open")
    row = page.locator(".visit li", has_text="5 5 7 5")
    row.get_by_label("note on").fill("the other prompt")
    row.get_by_label("note on").press("Tab")
    row.get_by_label("star:").click()
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as one page (HTML)").click()
    sent = download.value.path().read_text(encoding="utf-8")
    assert "the other prompt" in sent and sent.count("<section") == 3 and "<script src" not in sent
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as a file").click()
    saved = tmp_path / "visit.json"
    download.value.save_as(saved)
    row.get_by_role("button", name="Show again").click()
    page.wait_for_function(tokens, arg=4)
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Induction on this prompt'")
    other = open_page("#model=toy-induction&prompt=3+7+9")
    other.click("#visit-open")
    other.set_input_files(".visit input[type=file]", saved)
    other.wait_for_selector(".visit [role=status] >> text=3 steps were read.")
    assert other.locator(".visit li", has_text="★").count() == 1
    saved.write_text('{"kind": "something else"}')
    other.set_input_files(".visit input[type=file]", saved)
    other.wait_for_selector(".visit [role=status] >> text=which holds no visit")


def test_models_with_other_tokens_are_not_compared(open_page):
    page = open_page()
    page.get_by_text("Compare with").click()
    page.click("#other-model")
    page.get_by_role("option", name="toy-induction").click()
    page.click("#run")
    page.wait_for_selector(".notice")
    assert "whose tokenizers differ" in page.inner_text(".notice")


def test_two_models_with_one_tokenizer(open_page, screenshots):
    page = open_page("#model=toy-induction&prompt=3+7+9+5+3+7&other-model=toy-without-its-head&compare=difference")
    wait_for_title(page, "#main-figure", "this run minus toy-without-its-head")
    view(page, "Induction heads")
    wait_for_title(page, "#main-figure", "this run minus toy-without-its-head")
    # What a head writes is not where it looks: without it, scores of attention stay as they are.
    page.wait_for_function("() => document.querySelector('#said').textContent.includes('the two are equal')")
    page.screenshot(path=screenshots / "two-models.png")


def test_hovering_shows_what_a_click_would_select(same_page):
    page = same_page
    page.wait_for_selector("#details .js-plotly-plot .main-svg")
    page.hover("#tokens [data-pos='5']")
    page.wait_for_selector("#main-figure .preview:not([hidden])")
    assert selection(page)["pos"] == 19  # a look is no choice
    page.mouse.move(5, 5)
    page.wait_for_selector("#main-figure .preview:not([hidden])", state="detached")


def test_the_page_is_light(open_page):
    page = open_page()
    script = (
        "() => performance.getEntriesByType('resource').filter(e => !e.name.includes('_dash-update-component'))"
        ".map(e => [e.transferSize, e.decodedBodySize])"
    )
    sent, unpacked = map(sum, zip(*page.evaluate(script), strict=True))
    print(f"the page before caching: {sent / 1e6:.2f} MB sent, {unpacked / 1e6:.2f} MB unpacked")
    assert sent < 5e6


def test_the_journey_of_a_newcomer(open_page, screenshots):
    """Find an induction head, check it causally, see the route of a prediction, copy the link."""
    page = open_page(height=720)
    page.click("#example")
    page.get_by_role("option", name="a made-up name again").click()
    page.wait_for_selector("#tokens [data-pos='17']")
    page.wait_for_selector("#tokens [data-pos='18']", state="detached")
    view(page, "Induction heads")
    click_cell(page, "#main-figure", 6, 18)
    page.wait_for_function("() => document.querySelector('#details').textContent.includes('Attention of L18H6')")
    page.mouse.move(5, 5)
    page.wait_for_timeout(800)
    page.screenshot(path=screenshots / "journey-head.png")
    page.get_by_role("button", name="Check L18H6 on random tokens that repeat", exact=True).wait_for()
    view(page, "Induction on this prompt")  # its check is of this prompt: a sixteenth of the other's passes
    page.get_by_role("button", name=re.compile("^Check L18H6")).first.click()
    page.wait_for_function("() => document.querySelector('#params-title').textContent === 'Causal check'")
    page.wait_for_selector("#main-figure:not(.stale) .js-plotly-plot .nsewdrag")
    page.wait_for_function("() => document.querySelector('#said').textContent.includes('L18H6')", timeout=480_000)
    page.wait_for_selector(".job", state="detached", timeout=240_000)
    assert "what came next the last time" in page.inner_text("#said")
    page.wait_for_timeout(800)
    page.screenshot(path=screenshots / "journey-check.png")
    view(page, "Information-flow routes")
    page.fill("input[aria-label=threshold]", "0.04")
    page.keyboard.press("Tab")
    wait_for_title(page, "#main-figure", "0.04")
    page.click("#link-copy")
    page.wait_for_function("() => document.querySelector('#link-copy').textContent !== 'Copy link'")
    page.wait_for_timeout(800)
    page.screenshot(path=screenshots / "journey-route.png")


def test_a_chat_goes_through_the_template(open_page):
    page = open_page()
    page.fill("#prompt", "Say yes")
    page.get_by_text("chat", exact=True).click()
    page.wait_for_function("() => document.querySelector('#tokens').textContent.includes('<|im_end|>')")


def test_the_model_continues_the_prompt(open_page):
    page = open_page()
    run(page, "The capital of France is")
    page.get_by_text("Continue the prompt").click()
    page.get_by_role("button", name="Let the model write").click()
    page.wait_for_function("() => document.querySelector('#prompt').value.startsWith('The capital of France is Paris')")
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length > 6")


def test_by_keyboard_alone(open_page, screenshots):
    page = open_page()
    page.locator("body").press("?")
    page.wait_for_selector("[role=dialog] table")
    page.keyboard.press("Escape")
    page.wait_for_selector("[role=dialog]", state="detached")
    for opener, popup in (("#about", "#about-text h3"), ("#intervene", "[role=menuitem]")):
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


def test_a_lost_server_is_said_and_nothing_is_lost(browser, explorer):
    context = browser.new_context()
    page = context.new_page()
    page.goto(explorer.address)
    page.wait_for_selector("#tokens [data-pos]")
    page.fill("#prompt", "Nothing is lost here")
    context.set_offline(True)
    page.click("#tokens [data-pos='1']")
    page.wait_for_selector("#connection:not([hidden])")
    context.set_offline(False)
    page.wait_for_selector("#connection[hidden]", state="attached")
    page.press("#prompt", "Control+Enter")
    page.wait_for_function("() => document.querySelectorAll('#tokens [data-pos]').length === 5")
    context.close()
