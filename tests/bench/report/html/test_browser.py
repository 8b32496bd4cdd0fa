"""The page in a real browser: Chromium and its driver, as Debian packages them (chromium, chromium-driver)."""

import io
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from bench.report.html.collect import Collected
from bench.report.html.page import render
from bench.report.html.pictures import pack
from bench.run.store import RunDir

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed (extra test)")
BROWSER = next((p for n in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(n))), None)
DRIVER = shutil.which("chromedriver")
REQUIRED = os.environ.get("BENCH_BROWSER") == "required"
"""Set by continuous integration, where the tests may not be skipped."""
pytestmark = pytest.mark.skipif(
    not REQUIRED and not (BROWSER and DRIVER), reason="no Chromium here: apt-get install chromium chromium-driver"
)
PATIENCE = 30.0
WIDTHS = (1400, 400)


class Page:
    """A browser window with a report."""

    def __init__(self, driver, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads

    def open(self, path: Path, address: str = "") -> None:
        self.driver.get("about:blank")
        self.driver.get(f"file://{path}#{address}")

    def js(self, code: str, *words: object):
        return self.driver.execute_script(code, *words)

    def all(self, selector: str):
        return self.driver.find_elements("css selector", selector)

    def texts(self, selector: str) -> list[str]:
        return [e.text for e in self.all(selector)]

    def press(self, selector: str) -> None:
        element = self.wait(lambda: next((e for e in self.all(selector) if e.is_displayed()), None), selector)
        self.js("arguments[0].scrollIntoView({block: 'center', inline: 'center'})", element)
        element.click()

    def choose(self, select: str, value: str) -> None:
        self.js(
            "const s = document.getElementById(arguments[0]); s.value = arguments[1]; "
            "s.dispatchEvent(new Event('change'))", select, value,
        )  # fmt: skip

    def wait(self, condition: Callable, what: str = "") -> object:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := condition():
                return found
            time.sleep(0.05)
        raise AssertionError(f"it did not happen: {what} {self.errors()}")

    def address(self) -> str:
        return self.driver.current_url.partition("#")[2]

    def errors(self) -> list[str]:
        return [e["message"] for e in self.driver.get_log("browser") if e["level"] in ("SEVERE", "WARNING")]

    def pixels(self, canvas: str) -> np.ndarray:
        data = self.js(
            "const c = document.querySelector(arguments[0]); "
            "return [c.width, c.height, ...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]", canvas,
        )  # fmt: skip
        return np.array(data[2:], np.uint8).reshape(data[1], data[0], 4)[..., :3]

    def shown(self, name: str, which: str = "a") -> None:
        """Wait until the viewer has a picture in its place."""
        part = 1 if which == "a" else 2
        code = "return JSON.parse(document.getElementById('stage').dataset.shown || '[]')[arguments[0]]"
        self.wait(lambda: self.js(code, part) == name, f"{which} is {name}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    from selenium.webdriver.chrome.options import Options
    from selenium.webdriver.chrome.service import Service

    assert BROWSER, "no Chromium here: apt-get install chromium chromium-driver"
    assert DRIVER, "no chromedriver here: apt-get install chromium chromium-driver"
    downloads = tmp_path_factory.mktemp("downloads")
    options = Options()
    options.binary_location = BROWSER
    for word in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(word)
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium has no sandbox for root
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        yield Page(driver, downloads)
    finally:
        driver.quit()


@pytest.fixture(params=WIDTHS)
def page(request: pytest.FixtureRequest, browser: Page, measured: RunDir) -> Page:
    """The report of one run, at the width of a desktop or a phone; at its end nothing has gone wrong."""
    size(browser, request.param)
    browser.open(measured.path / "report.html")
    yield browser
    assert browser.errors() == []
    wide = browser.js("return document.documentElement.scrollWidth - innerWidth")
    assert wide <= 0, "the page is wider than its window"


def size(page: Page, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    page.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def test_table_sorts_filters_and_hides(page: Page) -> None:
    names = "#table tbody th"
    assert page.texts(names) == ["Bicubic", "CVDVAE τ 0.8"] * 2
    page.press("[data-focus='head psnr']")
    figures = page.wait(lambda: page.texts("#table tbody td:nth-child(4)"))
    assert figures == sorted(figures, key=float, reverse=True)
    assert page.js("return document.activeElement.dataset.focus") == "head psnr"
    page.press("[data-focus='head psnr']")
    page.wait(lambda: page.texts("#table tbody td:nth-child(4)") == figures[::-1])
    page.all("#table-filter")[0].send_keys("x8 cvd")
    page.wait(lambda: page.texts(names) == ["CVDVAE τ 0.8"], "filtered")
    page.press(".menu summary")
    page.press("#table-columns input[value=psnr]")
    page.wait(lambda: not any("PSNR ↑" in t and "LR" not in t for t in page.texts("#table thead th")), "hidden")
    assert "hide=psnr" in page.address()


def test_figures_tell_their_interval_and_lead_to_their_images(page: Page) -> None:
    figure = "[data-focus='figure 0.cvdvae_x8_tau0.8 lr_psnr']"
    assert "95%" in page.all(figure)[0].get_attribute("data-tip")
    page.press(figure)
    page.wait(lambda: len(page.all("#gallery .thumb")) == 3)
    values = [float(t) for t in page.texts("#gallery .value")]
    assert values == sorted(values)  # worst first, of a metric whose larger values are better
    assert page.js("return document.getElementById('images-of').value") == "0.cvdvae_x8_tau0.8"


def test_downloads(page: Page) -> None:
    for old in page.downloads.iterdir():
        old.unlink()
    for name in ("table.csv", "samples.parquet", "table.tex", "table.md"):
        if not page.all("#downloads")[0].is_displayed():
            page.js("document.getElementById('downloads').parentElement.open = true")
        page.press(f"#downloads [data-file='{name}']")
        page.wait(lambda name=name: (page.downloads / name).is_file(), name)
    assert len(pd.read_csv(page.downloads / "table.csv")) == 4
    assert len(pd.read_parquet(io.BytesIO((page.downloads / "samples.parquet").read_bytes()))) == 18


def test_pictures_are_those_of_the_run(page: Page, measured: RunDir) -> None:
    row = "0.cvdvae_x8_tau0.8"
    page.open(measured.path / "report.html", f"view=images&scale=8&image=1&a={row}/s1&b=truth")
    page.shown(f"{row}/s1")
    folder = measured.path / "cells" / "cvdvae_x8_tau0.8" / "samples"
    samples = np.stack([np.asarray(Image.open(folder / f"000001_{j}.png").convert("RGB")) for j in range(2)])
    truth = np.asarray(Image.open(measured.image_folder(8, 1) / "hr.png").convert("RGB"))
    assert np.array_equal(page.pixels("#canvas-a"), samples[1])
    assert np.array_equal(page.pixels("#canvas-b"), truth)
    for tile in ("mean", "std", "error"):
        canvas = f"[data-picture='{row}/{tile}'] canvas"
        page.wait(lambda c=canvas: page.js("return document.querySelector(arguments[0])?.width", c) == 64, tile)
    mean = page.pixels(f"[data-picture='{row}/mean'] canvas").astype(float)
    assert np.abs(mean - samples.mean(0)).max() <= 0.5
    from bench.report.figures import deviation_map

    spread = page.pixels(f"[data-picture='{row}/std'] canvas").astype(int)
    assert np.abs(spread - deviation_map(samples).astype(int)).max() <= 6  # a step of the colours, from rounding
    assert page.js("return getComputedStyle(document.getElementById('canvas-a')).imageRendering") == "pixelated"


def test_two_pictures_are_compared_in_place(page: Page, measured: RunDir) -> None:
    row = "0.cvdvae_x8_tau0.8"
    page.open(measured.path / "report.html", f"view=images&scale=8&image=0&a={row}/s0&b=truth")
    page.shown(f"{row}/s0")
    clip = "return document.getElementById('canvas-b').style.clipPath"
    assert "50%" in page.js(clip)
    page.press(f"[data-picture='{row}/s1']")
    page.shown(f"{row}/s1")
    page.press("[name=sets][value=b]")
    page.press(f"[data-picture='{row}/s0']")
    page.shown(f"{row}/s0", "b")
    key = (
        "const s = document.getElementById('stage'); s.focus();"
        "s.dispatchEvent(new KeyboardEvent(arguments[0], {key: ' ', bubbles: true}))"
    )
    page.js(key, "keydown")
    assert page.js(clip) in ("inset(0px)", "inset(0px 0px 0px 0%)")
    page.js(key, "keyup")
    assert "50%" in page.js(clip)
    from selenium.webdriver.common.action_chains import ActionChains

    stage = page.all("#stage")[0]
    page.js("arguments[0].scrollIntoView({block: 'center'})", stage)
    ActionChains(page.driver, duration=10).move_to_element(stage).click_and_hold().move_by_offset(
        -100, 0
    ).release().perform()
    page.wait(lambda: "at=" in page.address(), "the divider is in the link")
    assert 5 < float(page.js("return document.getElementById('divide').value")) < 45
    page.press("#subtract")
    page.wait(lambda: "subtract=1" in page.address())


def test_keys_and_links_lead_to_images(page: Page, measured: RunDir) -> None:
    page.open(measured.path / "report.html", "view=images&scale=4&order=number&image=1")
    name = "return document.getElementById('image-name').textContent"
    page.wait(lambda: page.js(name) == "test-000001")
    page.js("document.body.dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowRight', bubbles: true}))")
    page.wait(lambda: page.js(name) == "test-000002")
    page.press("#share")
    link = page.address()
    page.open(measured.path / "report.html", link)
    page.wait(lambda: page.js(name) == "test-000002")
    assert page.js("return document.getElementById('images-scale').value") == "4"
    page.all("#images-filter")[0].send_keys("000000")
    page.wait(lambda: len(page.all("#gallery .thumb")) == 1)
    assert "test-000000" in page.texts("#gallery .thumb")[0]


def test_images_are_sorted_by_disagreement(page: Page, measured: RunDir) -> None:
    page.open(measured.path / "report.html", "view=images&scale=8&metric=psnr")
    page.choose("images-of", "0.bicubic_x8")
    page.choose("images-beside", "0.cvdvae_x8_tau0.8")
    page.wait(lambda: "beside=" in page.address())
    page.choose("images-order", "worst")
    values = [abs(float(t)) for t in page.texts("#gallery .value")]
    assert values == sorted(values, reverse=True)
    page.press("[data-focus='chip 0.bicubic_x8']")
    page.wait(lambda: not page.all("[data-picture='0.bicubic_x8/s0']"), "the method is gone")


def test_plots_lead_to_images(page: Page, measured: RunDir) -> None:
    page.open(measured.path / "report.html", "view=plots&scale=8&metric=psnr")
    page.wait(
        lambda: len(page.all("#trade svg")) == 4 and page.all("#spread svg") and len(page.all("#calibration svg")) == 3,
        "plots",
    )
    points = page.wait(lambda: page.all("#spread .mark-symbol path"))
    assert len(points) >= 6
    page.js("arguments[0].scrollIntoView({block: 'center'})", points[0])
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page.driver, duration=10).move_to_element(points[0]).click().perform()
    page.wait(lambda: "view=images" in page.address(), "a point opens its image")
    assert "image=" in page.address()


@pytest.mark.parametrize("width", WIDTHS)
def test_runs_beside_each_other(browser: Page, both: Path, width: int) -> None:
    size(browser, width)
    browser.open(both, "view=differences")
    assert browser.wait(lambda: browser.texts("#matrix tbody th")) == ["Bicubic", "CVDVAE τ 0.8"]
    assert "not told apart" in browser.all("#matrix tbody tr:first-child button")[0].get_attribute("data-tip")
    browser.press("#matrix tbody tr:nth-child(2) button")
    browser.wait(lambda: "CVDVAE" in browser.js("return document.getElementById('pair-a').selectedOptions[0].text"))
    browser.press("#most .two")
    browser.wait(lambda: "view=images" in browser.address())
    browser.shown("1.cvdvae_x8_tau0.8/s0", "b")
    assert browser.errors() == []


def test_pictures_beside_the_page(browser: Page, measured: RunDir, collected: Collected, tmp_path: Path) -> None:
    packed = pack(collected, tmp_path / "report_pictures", most=1)
    pictures = {"folder": "report_pictures", "files": packed.files, "thumbnails": packed.thumbnails}
    content = collected.content | {"pictures": packed.index | pictures}
    (tmp_path / "report.html").write_text(render(content, packed.embedded))
    browser.open(tmp_path / "report.html", "view=images&scale=8&image=2&a=truth&b=lr")
    browser.shown("truth")
    truth = np.asarray(Image.open(measured.image_folder(8, 2) / "hr.png").convert("RGB"))
    assert np.array_equal(browser.pixels("#canvas-a"), truth)
    assert browser.errors() == []
    shutil.rmtree(tmp_path / "report_pictures")
    browser.open(tmp_path / "report.html", "view=images&scale=8&image=2&a=truth&b=lr")
    browser.wait(lambda: "not beside this page" in (browser.all("#stage")[0].get_attribute("data-text") or ""))
    browser.errors()  # of the file that is not there


def test_names_do_not_become_scripts(browser: Page, hostile: RunDir, script: str) -> None:
    became = (
        "return !![...document.scripts].find((s) => s.textContent === 'alert(1)') "
        "|| !!document.querySelector('img[src=x]')"
    )
    for view in ("overview", "images", "plots", "differences"):
        browser.open(hostile.path / "report.html", f"view={view}")
        browser.wait(lambda view=view: browser.js("return !document.getElementById(arguments[0]).hidden", view))
        browser.wait(lambda: script in browser.js("return document.body.textContent"))
        assert not browser.js(became)
    assert browser.errors() == []
    policy = browser.js(
        "const s = document.createElement('script'); s.textContent = 'window.broken = 1';"
        "document.body.append(s); return window.broken"
    )
    assert policy is None  # a script that came in all the same is not run
    assert len(browser.errors()) == 1


def test_dark_and_light(browser: Page, measured: RunDir) -> None:
    colours = {}
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        browser.open(measured.path / "report.html")
        colours[scheme] = browser.js(
            "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color].map((c) => "
            "c.match(/\\d+/g).map(Number).reduce((a, b) => a + b) / 765)"
        )
    assert colours["light"][0] - colours["light"][1] > 0.6
    assert colours["dark"][1] - colours["dark"][0] > 0.6


def test_everything_has_a_name(browser: Page, measured: RunDir) -> None:
    """Controls are reached by keys and named for those who do not see them."""
    for view in ("overview", "images", "plots", "differences"):
        browser.open(measured.path / "report.html", f"view={view}")
        browser.wait(lambda view=view: browser.js("return !document.getElementById(arguments[0]).hidden", view))
        unnamed = browser.js(
            "return [...document.querySelectorAll('button, select, input, summary, [role=img], [role=region]')]"
            ".filter((e) => e.offsetParent)"
            ".filter((e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.[0]?.textContent.trim()))"
            ".map((e) => e.outerHTML)"
        )
        assert unnamed == []
