"""A headless Chromium, and the local page as people find it there."""

import base64
import json
import os

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.select import Select

from conftest import eventually
from upstream import CHAT_MODEL

# Nothing but this machine can be reached, and nothing is looked for.
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]


def start(folder):
    """A Chromium with an empty profile in `folder`. The program and what drives it are named by the environment."""
    options = webdriver.ChromeOptions()
    options.binary_location = os.environ["GRISTMILL_CHROMIUM"]
    for flag in FLAGS:
        options.add_argument(flag)
    options.add_argument(f"--user-data-dir={folder}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path=os.environ["GRISTMILL_CHROMEDRIVER"])
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_script_timeout(60)
    return driver


class Page:
    """A browser that looks at the page."""

    def __init__(self, driver, url, pictures):
        self.driver = driver
        self.url = url
        self.pictures = pictures

    def open(self, hash=""):
        # A fresh document each time, with nothing of the one before it.
        self.driver.get("about:blank")
        self.logs()
        self.driver.get(f"{self.url}/{hash}")
        eventually("the page shows how things stand",
                   lambda: "Asking the client" not in self.text("status") and self.text("status"))
        return self

    def find(self, id):
        return self.driver.find_element(By.ID, id)

    def text(self, id):
        return self.find(id).text

    def script(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def imported(self, module, body):
        """What `body` gives with the exports of one of the page's own modules as `it`."""
        done = self.driver.execute_async_script(f"""
            const done = arguments[arguments.length - 1];
            import("/page/{module}").then((it) => {{ {body} }})
                .then((value) => done({{value}}), (error) => done({{error: String(error)}}));""")
        assert "error" not in done, done
        return done["value"]

    def emulate(self, width=1100, height=1000, **media):
        # Where nothing glides, what is clicked stays where it was found.
        media = {"prefers_reduced_motion": "reduce", **media}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {
            "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500})
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {
            "features": [{"name": name.replace("_", "-"), "value": value} for name, value in media.items()]})

    def picture(self, name):
        """The whole page, for people to look at."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {
            "captureBeyondViewport": True,
            "clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}})
        (self.pictures / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def logs(self):
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self):
        """The addresses that the browser asked for since the last call."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [message["params"]["request"]["url"] for message in messages
                if message["method"] == "Network.requestWillBeSent"]

    def choose(self, model):
        eventually(f"{model} can be chosen",
                   lambda: model in [option.text for option in Select(self.find("model")).options])
        Select(self.find("model")).select_by_visible_text(model)

    def ask(self, prompt, model=CHAT_MODEL):
        self.choose(model)
        self.find("prompt").clear()
        self.find("prompt").send_keys(prompt)
        self.find("ask").click()

    def ended(self):
        eventually("an end", lambda: self.text("ask-status") not in ("", "Answering…"))
        return self.text("ask-status")

    def rows(self, table):
        """The rows of a table as people read them, each by the names of its columns."""
        return self.script("""
            return [...document.querySelectorAll(`#${arguments[0]} tbody tr`)].map((row) =>
                Object.fromEntries([...row.children].map((cell) => [cell.dataset.label, cell.textContent])));""", table)

    def facts(self, id):
        return dict(self.script("""
            return [...document.querySelectorAll(`#${arguments[0]} > div`)].map((pair) =>
                [pair.querySelector("dt").textContent, pair.querySelector("dd").textContent]);""", id))

    def active(self):
        return self.script("""
            const active = document.activeElement;
            return active.id || (active === document.body ? "body" : active.textContent.trim());""")

    def press(self, *keys, held=None):
        """Presses keys one after the other, while one is held down."""
        chain = webdriver.ActionChains(self.driver)
        if held is not None:
            chain.key_down(held)
        chain.send_keys(*keys)
        if held is not None:
            chain.key_up(held)
        chain.perform()

    def overflow(self):
        """By how many pixels the page is wider than the window, and what sticks out of that or of its section."""
        return self.script("""
            const width = document.documentElement.clientWidth;
            const out = [...document.body.querySelectorAll("*")].filter((element) => {
                const box = element.getBoundingClientRect();
                const edge = Math.min(width, element.closest("section")?.getBoundingClientRect().right ?? width);
                return box.width > 1 && box.right > edge + 0.5 && !element.closest(".skip, thead");
            });
            return [Math.max(0, document.documentElement.scrollWidth - width), out.map((element) => element.outerHTML.slice(0, 80))];""")

    def violations(self, axe):
        """What axe-core finds wrong, in the rules of WCAG 2.2 AA and of good practice."""
        self.script(axe)
        found = self.driver.execute_async_script("""
            const done = arguments[arguments.length - 1];
            axe.run(document, {resultTypes: ["violations", "incomplete"]}).then(done, (error) => done(String(error)));""")
        assert isinstance(found, dict), found
        assert len(found["passes"]) > 20, "the rules were run"
        return [(rule["id"], rule["help"], [node["html"][:120] for node in rule["nodes"]]) for rule in found["violations"]]
