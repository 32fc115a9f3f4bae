"""The local page in a real headless Chromium: by mouse and by keyboard, light and dark, wide and narrow."""

import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

import browser
from browser import Page
from conftest import Market, eventually, get
from upstream import CHAT_MODEL, EMBEDDING_MODEL

KEY = "sk-page-0123456789abcdef"
AXE = "node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    driver = browser.start(tmp_path_factory.mktemp("browser"))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Where the pictures go: a folder of the tests, or one where somebody looks at them."""
    chosen = os.environ.get("GRISTMILL_SCREENSHOTS")
    folder = Path(chosen) if chosen else tmp_path_factory.mktemp("pictures")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def page(driver, market, pictures):
    page = Page(driver, market.client_url, pictures)
    page.emulate(prefers_color_scheme="light")
    driver.get(market.client_url)
    driver.execute_script("sessionStorage.clear()")
    page.requests()
    return page.open()


@pytest.fixture(scope="module")
def locked_market(tmp_path_factory):
    """A client that asks for a key and knows no provider."""
    market = Market(tmp_path_factory.mktemp("locked"))
    try:
        market.start_coordinator("--starter-grant", "5")
        market.start_client("--api-key", KEY)
        yield market
    finally:
        market.stop()


@pytest.fixture
def locked_page(driver, locked_market, pictures):
    page = Page(driver, locked_market.client_url, pictures)
    page.emulate(prefers_color_scheme="light")
    driver.get(locked_market.client_url)
    driver.execute_script("sessionStorage.clear()")
    return page.open()


@pytest.fixture(scope="module")
def axe(node_folder):
    return (node_folder / AXE).read_text()


def test_it_loads_from_this_machine_alone_and_without_a_complaint(page):
    page.open()
    addresses = page.requests()
    assert {address.removeprefix(page.url) for address in addresses if not address.startswith("about:")} >= {
        "/", "/page/style.css", "/page/page.js", "/page/format.js", "/page/icon.svg", "/v1/page/state"}
    assert all(address.startswith(f"{page.url}/") or address == "about:blank" for address in addresses), addresses
    assert page.logs() == []
    assert page.driver.title == "Gristmill: your endpoint"
    assert page.text("base-url") == f"{page.url}/v1"
    assert "Connected to the coordinator" in page.text("status")
    assert page.script("return [document.cookie, localStorage.length, sessionStorage.length]") == ["", 0, 0]


def test_models_are_shown_with_price_and_speed(page):
    rows = eventually("all models", lambda: (rows := page.rows("models-table")) and len(rows) >= 3 and rows)
    by_name = {row["Model"]: row for row in rows}
    offered = {model["id"]: model for model in get(f"{page.url}/v1/models")["data"]}
    assert by_name.keys() == offered.keys()
    assert "chat" in by_name[CHAT_MODEL]["For"].split(", ") and by_name[EMBEDDING_MODEL]["For"] == "embeddings"
    assert " in, " in by_name[CHAT_MODEL]["Credits per million tokens"]
    assert by_name[CHAT_MODEL]["Context"] == "4,096" and by_name[CHAT_MODEL]["Providers"] == "1"
    choices = [option.text for option in Select(page.find("model")).options]
    assert CHAT_MODEL in choices and EMBEDDING_MODEL not in choices


def test_hardware_that_nobody_has_shown_is_unverified(page):
    # No node of this market shows its own; those of test_hardware.py do.
    rows = eventually("both nodes", lambda: (rows := page.rows("hardware-table")) and len(rows) >= 2 and rows)
    assert {row["Hardware"] for row in rows} == {"Unverified"}
    assert {row["Device"] for row in rows} == {""}
    assert {row["Verified"] for row in page.rows("models-table")} == {"0"}


def test_an_answer_streams_and_is_accounted_for(page):
    prompt = "Grain goes in. Flour comes out! Is that all? Yes"
    before = page.facts("spending-sums").get("Today (UTC)", "0 credits")
    page.ask(prompt)
    assert page.ended() == "Answered."
    assert page.script("return document.getElementById('answer').textContent").strip() == f"You said: {prompt}"
    # Screen readers were given whole sentences, each once.
    pieces = page.script("return [...document.getElementById('answer').children].map((piece) => piece.textContent)")
    assert [piece.strip() for piece in pieces] == [
        "You said:", "Grain goes in.", "Flour comes out!", "Is that all?", "Yes"]
    log = page.find("answer")
    assert (log.get_attribute("role"), log.get_attribute("aria-live")) == ("log", "polite")
    assert page.find("answer-tail").get_attribute("aria-hidden") == "true" and page.text("answer-tail") == ""
    facts = page.facts("answer-facts")
    assert facts["Cost"].endswith(" credits") and facts["Cost"] != "0 credits"
    assert facts["Tokens"] == "7 in, 13 out"
    assert facts["Request"].startswith("req_") and facts["Provider"].startswith("12D3Koo")
    assert not page.find("ask-error").is_displayed()

    # Its provider has a record, and its model was measured.
    def recorded():
        return {row["Provider"].removeprefix("…"): row for row in page.rows("providers-table")}.get(facts["Provider"][-8:])
    record = eventually("a record of the provider", lambda: (row := recorded()) and " ms" in row["First output after"] and row)
    assert record["Now"] == "Good" and int(record["Requests"]) >= 1 and record["Failures"] == "0"
    measured = {row["Model"]: row["First output after"] for row in page.rows("models-table")}
    assert " ms" in measured[CHAT_MODEL]
    assert page.logs() == []


def test_what_was_asked_and_spent_is_shown(page):
    def today():
        return page.facts("spending-sums").get("Today (UTC)", "0 credits")
    before = today()
    page.ask("Grain goes in.")
    assert page.ended() == "Answered."
    facts = page.facts("answer-facts")
    eventually("the spending", lambda: today() != before)
    [newest, *_] = page.rows("requests-table")
    assert newest["Model"] == CHAT_MODEL and newest["Outcome"] == "Answered"
    assert newest["Tokens"] == facts["Tokens"] and f"{newest['Credits']} credits" == facts["Cost"]
    assert newest["Provider"].removeprefix("…") == facts["Provider"][-8:]
    assert " first output " in newest["Took"]
    page.find("spending-details").find_element(By.TAG_NAME, "summary").click()
    [day, *_] = page.rows("days-table")
    assert int(day["Requests"]) >= 1 and day["Day"] == time.strftime("%Y-%m-%d", time.gmtime())
    assert f"{day['Credits']} credits" == today()
    chart = page.script("return document.querySelector('#spending-chart svg').getAttribute('aria-label')")
    assert chart.startswith("Spending in the last 30 days: ") and day["Day"] in chart
    # A failure is in the log, too, and costs nothing.
    page.ask("break")
    assert page.ended() == "Not answered."
    failed = eventually("the failure", lambda: (row := page.rows("requests-table")[0])["Outcome"] != "Answered" and row)
    assert failed["Outcome"].startswith("Failed") and failed["Credits"] == "0"
    # No prompt and no answer is anywhere but in the form and in the answer.
    for path in ("page/state", "usage", "usage/requests"):
        told = json.dumps(get(f"{page.url}/v1/{path}"))
        assert "Grain" not in told and "You said" not in told


def test_an_answer_can_be_stopped(page, upstream_server):
    before = upstream_server.disconnects
    page.ask("for ever")
    grown = eventually("some of the answer", lambda: len(page.find("answer-tail").text) > 20 and page.text("answer-tail"))
    eventually("more of it", lambda: len(page.text("answer-tail")) > len(grown))
    assert page.find("ask").get_attribute("aria-disabled") == "true"
    page.find("stop").click()
    assert page.ended().startswith("Stopped.")
    assert page.active() == "ask" and not page.find("stop").is_displayed()
    assert "again again" in page.text("answer")
    eventually("the engine stopped", lambda: upstream_server.disconnects > before, 20)


def test_errors_are_told_in_words(page):
    page.ask("break")
    assert page.ended() == "Not answered."
    told = page.text("ask-error")
    assert "upstream says no" in told and "Request req_" in told
    assert page.find("ask-error").get_attribute("role") == "alert"
    # The next answer takes the error away.
    page.ask("hello there")
    assert page.ended() == "Answered." and page.text("ask-error") == ""
    # What is missing is said before anything is sent, at the field that lacks it.
    page.find("prompt").clear()
    page.find("ask").click()
    assert page.text("ask-error") == "Write a prompt first." and page.active() == "prompt"
    assert page.find("prompt").get_attribute("aria-invalid") == "true"
    # A model that went away since the list was made.
    page.script("document.querySelector('#model').append(new Option('gone', 'gone', true, true))")
    page.find("prompt").send_keys("anybody?")
    page.find("ask").click()
    assert page.ended() == "Not answered."
    assert "Nobody offers this model any more" in page.text("ask-error")


def test_a_broken_answer_keeps_what_came_and_says_so(page):
    page.script("""
        const chunk = (content) => `data: ${JSON.stringify({choices: [{index: 0, delta: {content}}]})}\\n\\n`;
        const error = 'data: {"error":{"message":"the mill burnt down","code":"provider_failed"}}\\n\\n';
        const real = window.fetch;
        window.fetch = async (path, ...rest) => path === "/v1/chat/completions"
            ? new Response(chunk("Half of ") + ": ping\\n" + chunk("it") + error + "data: [DONE]\\n\\n")
            : real(path, ...rest);""")
    page.ask("hello")
    assert page.ended() == "Not answered."
    assert page.text("answer") == "Half of it" and "the mill burnt down" in page.text("ask-error")


def test_everything_works_by_keyboard_alone(page, upstream_server):
    eventually("a model", lambda: page.find("model").get_attribute("value"))
    page.press(Keys.TAB)
    assert page.active() == "Skip to content"
    skip = page.script("return document.activeElement.getBoundingClientRect().top")
    assert skip >= 0, "it is seen when it has the focus"
    page.press(Keys.ENTER)
    assert page.active() == "main"
    page.open()
    order = []
    for _ in range(10):
        page.press(Keys.TAB)
        order.append(page.active())
        outline = page.script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid", f"the focus is seen on {order[-1]}"
    assert order == ["Skip to content", "Try it", "Models", "Spending", "Providers", "Requests",
                     "model", "output-limit", "prompt", "ask"]
    page.open()
    while page.active() != "model":
        page.press(Keys.TAB)
    page.press(CHAT_MODEL)
    page.press(Keys.TAB, Keys.TAB, "by keys", Keys.TAB)
    assert page.active() == "ask"
    page.press(Keys.ENTER)
    assert page.ended() == "Answered."
    assert page.text("answer").strip() == "You said: by keys"
    assert page.active() == "ask", "the focus stays where it was"
    page.press(Keys.TAB, held=Keys.SHIFT)
    assert page.active() == "prompt"
    before = len(upstream_server.requests)
    page.press(Keys.ENTER, held=Keys.CONTROL)
    eventually("it was asked again", lambda: len(upstream_server.requests) > before)
    eventually("an answer", lambda: page.ended() == "Answered.")
    page.press(Keys.TAB, Keys.TAB)
    scrollable = page.script("return document.activeElement.contains(document.getElementById('answer'))")
    assert scrollable, "a long answer can be scrolled"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1100, 360])
def test_it_is_accessible_and_fits(page, axe, scheme, width):
    page.emulate(width=width, prefers_color_scheme=scheme)
    page.open()
    assert page.violations(axe) == []
    page.ask("Is this to be read. Yes it is, " + "evenverylongwordslikethisone" * 8)
    assert page.ended() == "Answered."
    page.find("spending-details").find_element(By.TAG_NAME, "summary").click()
    page.picture(f"{scheme}-{width}")
    assert page.violations(axe) == []
    assert page.overflow() == [0, []]
    page.ask("break")
    assert page.ended() == "Not answered."
    page.picture(f"{scheme}-{width}-error")
    assert page.violations(axe) == []
    assert page.overflow() == [0, []]


def luminance(color):
    """Of an `rgb()` colour; WCAG 2.2, relative luminance."""
    channels = [int(part) / 255 for part in color.split("(")[1].rstrip(")").split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_it_follows_the_readers_wishes(page):
    def colours():
        return page.script("""
            const style = getComputedStyle(document.documentElement);
            return [style.color, style.backgroundColor];""")
    ink, ground = map(luminance, colours())
    assert ink < 0.1 and ground > 0.7
    page.emulate(prefers_color_scheme="dark", prefers_reduced_motion="no-preference")
    ink, ground = map(luminance, colours())
    assert ink > 0.6 and ground < 0.1
    motion = "return getComputedStyle(document.documentElement).scrollBehavior"
    assert page.script(motion) == "smooth"
    page.emulate(prefers_color_scheme="dark")
    assert page.script(motion) == "auto"


def test_it_fits_into_windows_of_any_width(page):
    # A long name without a blank, which stands in the log from now on.
    name = "meta-llama/Llama-3.3-70B-Instruct-" + "quantised" * 10
    page.script("""
        const body = JSON.stringify({model: arguments[0], messages: [{role: "user", content: "hello"}]});
        fetch("/v1/chat/completions", {method: "POST", body, headers: {"content-type": "application/json"}});""", name)
    page.ask("hello")
    assert page.ended() == "Answered."
    eventually("both in the log", lambda: {row["Model"] for row in page.rows("requests-table")} >= {name, CHAT_MODEL})
    page.find("spending-details").find_element(By.TAG_NAME, "summary").click()
    for width in (320, 360, 480, 768, 864, 880, 1024, 1600):
        page.emulate(width=width)
        assert page.overflow() == [0, []], width
    page.emulate(width=360)
    page.picture("long-names-360")


def test_a_key_is_asked_for_and_forgotten_with_the_tab(locked_page, axe):
    page = locked_page
    assert page.text("status") == "This endpoint asks for a key."
    assert page.find("key").is_displayed() and not page.find("sheets").is_displayed()
    assert page.violations(axe) == []
    page.picture("key")
    page.find("key-text").send_keys("sk-wrong-0123456789", Keys.ENTER)
    eventually("a wrong key is told", lambda: page.text("key-error") == "The key does not fit. Enter another one.")
    assert page.find("key-error").get_attribute("role") == "alert"
    page.find("key-text").send_keys(KEY, Keys.ENTER)
    eventually("the right key is taken", lambda: page.text("key-reason") == "Your key is in use.")
    assert page.text("key-error") == "" and page.find("key-text").get_attribute("value") == ""
    assert page.script("return [document.cookie, localStorage.length]") == ["", 0]
    assert page.script("return Object.values(sessionStorage)") == [KEY]
    assert KEY not in page.driver.page_source
    # It outlives a reload, and no more.
    page.open()
    assert page.text("key-reason") == "Your key is in use." and page.find("sheets").is_displayed()
    page.find("key-forget").click()
    eventually("the key is forgotten", lambda: page.text("status") == "This endpoint asks for a key.")
    assert page.script("return sessionStorage.length") == 0
    assert not page.find("sheets").is_displayed() and page.active() == "key-text"


def test_nobody_to_ask_is_told_in_words(locked_page, axe):
    page = locked_page
    page.find("key-text").send_keys(KEY, Keys.ENTER)
    eventually("how things stand", lambda: "nobody offers a model yet" in page.text("status"))
    assert "Nobody offers a model at the moment" in page.text("models-note")
    assert "Nothing was asked" in page.text("requests-note")
    page.find("prompt").send_keys("Is anybody there?")
    page.find("ask").click()
    assert "nobody offers one for chat" in page.text("ask-error") and page.active() == "model"
    # The last provider left after the list was made.
    page.script("document.querySelector('#model').append(new Option('gone', 'gone', true, true))")
    page.find("ask").click()
    assert page.ended() == "Not answered."
    told = page.text("ask-error")
    assert "Nobody serves this at the moment" in told and "Trying again makes sense after" in told
    eventually("the failure is in the log", lambda: page.rows("requests-table"))
    assert not page.find("spending-figure").is_displayed(), "there is nothing to draw"
    assert page.violations(axe) == []
    page.picture("nobody")


def test_a_client_that_ends_is_told_in_words(driver, pictures, tmp_path_factory):
    market = Market(tmp_path_factory.mktemp("ending"))
    try:
        market.start_coordinator()
        market.start_client()
        page = Page(driver, market.client_url, pictures).open()
        assert "Connected" in page.text("status")
        market.client.stop()
        eventually("the page notices", lambda: "The client does not answer" in page.text("status"))
    finally:
        market.stop()


class ForeignSite(BaseHTTPRequestHandler):
    """Somebody else's page, on another port of the same machine."""

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        body = b"<!doctype html><title>foreign</title><p>A page of somebody else."
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def test_pages_of_others_can_neither_call_nor_frame_it(page, upstream_server):
    site = ThreadingHTTPServer(("127.0.0.1", 0), ForeignSite)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    try:
        page.driver.get(f"http://127.0.0.1:{site.server_address[1]}/")
        before = len(upstream_server.requests)
        results = page.driver.execute_async_script("""
            const [base, model, done] = arguments;
            const body = JSON.stringify({model, messages: [{role: "user", content: "stolen"}]});
            const attempt = (path, options) => fetch(base + path, options).then((answer) =>
                answer.type === "opaque" ? "opaque" : `read ${answer.status}`, () => "refused");
            const framed = new Promise((resolve) => {
                const frame = document.createElement("iframe");
                frame.onload = () => { try { resolve(`read ${frame.contentDocument !== null}`); } catch { resolve("refused"); } };
                frame.src = base + "/";
                document.body.append(frame);
            });
            Promise.all([
                attempt("/v1/page/state"),
                attempt("/v1/chat/completions", {method: "POST", body, headers: {"content-type": "application/json"}}),
                attempt("/v1/chat/completions", {method: "POST", body, mode: "no-cors"}),
                framed,
            ]).then(done);""", page.url, CHAT_MODEL)
        assert results == ["refused", "refused", "opaque", "read false"], results
        assert len(upstream_server.requests) == before, "nothing was run, and nothing was paid"
    finally:
        site.shutdown()


def test_parts_of_the_page_are_right_to_the_last_digit(page):
    told = page.imported("format.js", """return [
        it.credits(0), it.credits(1), it.credits(1_000_000), it.credits(250_000), it.credits(1_234_567_000_001),
        it.credits(9_007_199_254_740_991), it.amount(1_000_000), it.amount(34), it.duration(null), it.duration(12.4),
        it.duration(1_240), it.duration(125_000), it.speed(null), it.speed(4.26), it.speed(1_234.5),
        it.counted(1, "model"), it.counted(1_200, "model"), it.kinds(["chat_completions", "new_kind"]),
        it.price({constant: 0, per_million: {}}), it.price({constant: 5, per_million: {input_token: 7_000}}),
        it.shortAccount("12D3KooWabcdefgh"), it.sentenceEnd("no end"), it.sentenceEnd("One. Tw"),
        it.sentenceEnd("1.5 is"), it.sentenceEnd("line\\nnext"), it.sentenceEnd("終わり。次")]""")
    assert told == [
        "0", "0.000001", "1", "0.25", "1,234,567.000001", "9,007,199,254.740991", "1 credit", "0.000034 credits",
        "not measured", "12 ms", "1.2 s", "125 s", "not measured", "4.3", "1,235", "1 model", "1,200 models",
        "chat, new kind", "free", "0.007 in, 0.000005 per request", "…abcdefgh", 0, 5, 0, 5, 4]
    days = page.imported("chart.js", """
        return it.lastDays([{group: "2026-02-28", requests: 2, cost: 5}], Date.UTC(2026, 2, 1, 23, 59), 3)""")
    assert [(day["group"], day["cost"]) for day in days] == [("2026-02-27", 0), ("2026-02-28", 5), ("2026-03-01", 0)]
    # Wherever the pieces are cut, the events are the same.
    text = ': ping\ndata: {"a":1}\n\ndata:2\r\ndata: 3\r\n\r\nevent: x\n\ndata: [DONE]\n\n'
    for size in range(1, len(text) + 1):
        read = page.imported("event_stream.js", f"""
            const text = {json.dumps(text)};
            const reader = new it.EventReader();
            const found = [];
            for (let at = 0; at < text.length; at += {size}) {{
                found.push(...reader.push(text.slice(at, at + {size})));
            }}
            return found;""")
        assert read == ['{"a":1}', "2\n3", "[DONE]"], size
    with pytest.raises(AssertionError, match="too long"):
        page.imported("event_stream.js", 'new it.EventReader().push("data: " + "x".repeat(1 << 21))')
