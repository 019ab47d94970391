"""Measures in Chromium how fast the page of a COCO-sized report opens and responds to its slider.

    python -m benchmarks.speed.page

The dataset is the one in evaluate.py, without image files: 5,000 images and 80 classes, with 7 objects and 100
detections per image. A move of the slider is timed from its event until the next frame is laid out and painted;
canvases are drawn in software. Needs Selenium, Chromium and its driver.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from selenium import webdriver

from benchmarks.arguments import device_of
from benchmarks.speed.evaluate import random_case
from benchmarks.speed.protocol import describe
from retinanet.evaluation.analysis import analyse
from retinanet.reports.html_page import document
from retinanet.reports.page_data import Run, page_data
from retinanet.settings.options import whole_number

WARM_UP = 5  # moves
# Calls back with the milliseconds from moving the slider until the page is painted.
MOVE = """
const [value, done] = arguments;
const slider = document.getElementById("threshold");
requestAnimationFrame(() => setTimeout(() => {
  const start = performance.now();
  slider.value = value;
  slider.dispatchEvent(new Event("input", {bubbles: true}));
  requestAnimationFrame(() => {
    const channel = new MessageChannel();
    channel.port1.onmessage = () => done(performance.now() - start);
    channel.port2.postMessage(null); // arrives after the frame
  });
}));
"""
PAINTED = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now())))"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--num_images", type=whole_number(1), default=5000)
    parser.add_argument("--num_classes", type=whole_number(1), default=80)
    parser.add_argument("--detections", type=whole_number(0), default=100, help="detections per image")
    parser.add_argument("--moves", type=whole_number(1), default=50)
    args = parser.parse_args()
    annotations, found = random_case(args)
    analysis = analyse(annotations, found, num_draws=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        data = page_data("generated", annotations, [Run("A", "generated", None, analysis)])
        path.write_text(document("generated", "generated", "", [], data))
        print(
            f"{len(analysis.found.scores)} detections in {args.num_images} images, {args.num_classes} classes: ", end=""
        )
        print(f"{path.stat().st_size / 1e6:.1f} MB")
        with open_browser(Path(folder)) as browser:
            opening = []
            for _ in range(3):
                browser.get("about:blank")
                started = time.perf_counter()
                browser.get(path.as_uri())
                browser.execute_async_script(PAINTED)
                opening.append(time.perf_counter() - started)
            print(
                f"opening: {statistics.median(opening):.2f} s ({min(opening):.2f} to {max(opening):.2f}), median of 3"
            )
            values = [(37 * move % 101) / 100 for move in range(WARM_UP + args.moves)]
            moves = [browser.execute_async_script(MOVE, value) for value in values][WARM_UP:]
    spread = f"({min(moves):.1f} to {max(moves):.1f})"
    print(f"slider: {statistics.median(moves):.1f} ms {spread}, median of {args.moves} moves")
    print(describe(device_of("cpu")))
    return 0


def open_browser(folder: Path) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for word in (
        "headless=new",
        "no-sandbox",
        "disable-dev-shm-usage",
        "disable-gpu",
        f"user-data-dir={folder}/profile",
    ):
        options.add_argument(f"--{word}")
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    browser.set_window_size(1280, 900)
    return browser


if __name__ == "__main__":
    sys.exit(main())
