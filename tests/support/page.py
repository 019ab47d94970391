"""Writes pages of reports on small sets, and opens them in Chromium."""

import shutil
from contextlib import contextmanager
from pathlib import Path

import pytest

from retinanet.coco.results import found_of
from retinanet.evaluation.analysis import analyse
from retinanet.reports.embedded_images import pictures_of, telling_order
from retinanet.reports.html_page import document
from retinanet.reports.page_data import Run, page_data
from retinanet.settings.shared import EMBED

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium(folder: Path, width: int = 1280, height: int = 900):
    """Opens a headless Chromium that writes only below `folder`; downloads are in folder/downloads."""
    selenium = pytest.importorskip("selenium.webdriver", reason="Selenium isn't installed: the page wasn't tested")
    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver = shutil.which("chromedriver")
    if not binary or not driver:
        pytest.skip("Chromium or its driver isn't installed: the page wasn't tested")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    profile, downloads = folder / "profile", folder / "downloads"
    downloads.mkdir(parents=True, exist_ok=True)
    for word in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"user-data-dir={profile}"):
        options.add_argument(f"--{word}")
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.downloads = downloads
        yield browser
    finally:
        browser.quit()


def press(browser, *keys: str) -> None:
    """Presses keys where the focus is: a character, a name such as ENTER or SHIFT+RIGHT, or text."""
    from selenium.webdriver.common.keys import Keys

    for key in keys:
        parts = key.split("+") if len(key) > 1 else [key]
        browser.switch_to.active_element.send_keys(*(getattr(Keys, part, part) for part in parts), Keys.NULL)


def tab_to(browser, selector: str, *, back: bool = False, most: int = 80) -> None:
    """Presses Tab, or Shift and Tab, until the element with the focus matches the selector."""
    for _ in range(most):
        press(browser, "SHIFT+TAB" if back else "TAB")
        if browser.execute_script("return document.activeElement.matches(arguments[0])", selector):
            return
    raise AssertionError(f"Tab doesn't reach {selector}")


def text_of(browser, selector: str) -> str:
    return browser.find_element("css selector", selector).text


def write_page(path: Path, dataset, *runs, suspects=None, megabytes=15, how=EMBED) -> Path:
    """Writes the page on one or two lists of result rows, with their pictures and any suspects."""
    annotations = dataset.annotations
    analyses = [analyse(annotations, found_of(rows, annotations), num_draws=0) for rows in runs]
    order = telling_order(analyses, annotations)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = page_data(
        "a page",
        annotations,
        [Run(name, f"{name}.json", None, analysis) for name, analysis in zip("AB", analyses, strict=False)],
        pictures=pictures_of(dataset, order, how, megabytes, path.parent),
        suspects=suspects,
    )
    path.write_text(document("a page", "a page", "", [], data))
    return path
