"""Drives the page's grid, viewer and labels in Chromium, as a person would: mostly by keys."""

import json
import time

import pytest
from PIL import Image
from support.data_folder import change_json, write_set
from support.page import chromium, press, tab_to, text_of, write_page

from retinanet.commands.convert import convert
from retinanet.data.dataset import load_set_without_images
from retinanet.settings.convert import convert_settings
from retinanet.settings.shared import LINK, MAX_PIXELS

AWKWARD = "<img src=x onerror=alert(1)>\u202edlrow\u202c </script><b>bold</b>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def open_page(browser, path, tab, width=1280):
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get("about:blank")
    browser.get(f"{path.as_uri()}#{tab}")


def small_set(folder):
    return load_set_without_images(folder, "val", MAX_PIXELS, for_pictures=True)


def row(image_id, category_id, box, score):
    return {"image_id": image_id, "category_id": category_id, "bbox": box, "score": score}


def rows_about(dataset, weak):
    """Detects each object at 0.9, except that of image `weak`, found at 0.2 among two false boxes."""
    annotations = dataset.annotations
    rows = []
    for image in range(len(dataset)):
        image_id = int(annotations.image_ids[image])
        for place in range(annotations.first[image], annotations.first[image + 1]):
            category_id = annotations.category_ids[annotations.labels[place]]
            rows.append(row(image_id, category_id, annotations.boxes[place].tolist(), 0.2 if image == weak else 0.9))
            rows += [row(image_id, category_id, [0, 4 * false, 3, 3], 0.95) for false in range(2 * (image == weak))]
    rows += [row(int(annotations.image_ids[0]), 1, [0, 4 * false, 3, 3], 0.5) for false in range(4)]
    return rows


def shown(browser, what):
    """Returns the texts of the elements that fit the selector `what`."""
    return [each.text for each in browser.find_elements("css selector", what)]


def canvas_data(browser, number=0):
    return browser.execute_script(
        "return document.querySelectorAll('#viewer canvas')[arguments[0]].toDataURL()", number
    )


def wait_for(condition):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.05)
    raise AssertionError("it did not happen in 10 s")


def test_keys_find_the_worst_image_of_a_class_and_lower_the_threshold_until_a_missed_object_appears(tmp_path, browser):
    write_set(tmp_path, "val", 9)
    dataset = small_set(tmp_path)
    annotations = dataset.annotations
    weak = 7
    name = annotations.class_names[annotations.labels[annotations.first[weak]]]
    of_class = [i for i in range(8) if annotations.class_names[annotations.labels[annotations.first[i]]] == name]
    open_page(browser, write_page(tmp_path / "page" / "report.html", dataset, rows_about(dataset, weak)), "images")

    tab_to(browser, "#images-class")
    press(browser, name[0])
    wait_for(lambda: f"{len(of_class)} of 9 images match: {name}" in text_of(browser, ".matching"))
    tab_to(browser, ".card")
    # It has the most false boxes.
    assert browser.switch_to.active_element.text.split("\n") == [annotations.file_name(weak), "2 false, 1 not found"]
    press(browser, "ENTER")
    assert text_of(browser, "#viewer .file") == annotations.file_name(weak)
    assert f"{name}, not found" in shown(browser, "#viewer .items button")
    for _ in range(20):
        if f"{name}, not found" in shown(browser, "#viewer .items button"):
            press(browser, "{")
    press(browser, *"]]]]")
    assert float(text_of(browser, "#viewer output")) == pytest.approx(0.19)
    assert any(text.startswith(name) and "0.200, right" in text for text in shown(browser, "#viewer .items button"))

    press(browser, "DOWN", "DOWN")
    selected = browser.find_elements("css selector", "#viewer .items [aria-pressed=true]")
    assert len(selected) == 1
    assert selected[0] == browser.switch_to.active_element
    press(browser, "n")
    assert text_of(browser, "#viewer .place").startswith("2 of")
    press(browser, "p", "ESCAPE")
    # The focus is back on its card, which the new threshold has changed.
    expected = f"{annotations.file_name(weak)}2 false, 0 not found"
    wait_for(lambda: browser.execute_script("return document.activeElement.textContent") == expected)
    assert not browser.get_log("browser")


def test_any_number_filters_the_scores_and_is_compared_in_float32(tmp_path, browser):
    write_set(tmp_path, "val", 9)
    dataset = small_set(tmp_path)
    page = write_page(tmp_path / "page" / "report.html", dataset, rows_about(dataset, weak=7))
    open_page(browser, page, "images")
    low, high = browser.find_elements("css selector", ".scores input")
    low.send_keys("0.93")  # only the false boxes of image 7 score higher
    wait_for(lambda: text_of(browser, ".matching").startswith("1 of 9"))
    low.clear()
    low.send_keys("0.13")
    high.send_keys("0.2")  # image 7's object scores 0.2, which float32 rounds up
    wait_for(lambda: text_of(browser, ".matching").startswith("1 of 9"))
    assert not browser.get_log("browser")


def test_pictures_are_drawn_and_zoom_moves_both_runs_alike(tmp_path, browser):
    write_set(tmp_path, "val", 3)
    dataset = small_set(tmp_path)
    rows = rows_about(dataset, weak=9)
    page = write_page(tmp_path / "page" / "report.html", dataset, rows, rows)
    assert "img-src data:;" in page.read_text()
    open_page(browser, page, "images")
    assert "gained by B" in text_of(browser, "#images-sort")
    left, top, width, height = dataset.annotations.boxes[0].tolist()
    tab_to(browser, "#images-search")
    press(browser, "1.png")
    wait_for(lambda: text_of(browser, ".matching").startswith("1 of 3"))
    at = [(left + width / 3) / 64, (top + height / 3) / 64]
    colour = """const canvas = document.querySelector(".card canvas"), side = Math.min(canvas.width, canvas.height);
        const x = (canvas.width - side) / 2 + arguments[0] * side, y = (canvas.height - side) / 2 + arguments[1] * side;
        return Array.from(canvas.getContext("2d").getImageData(x, y, 1, 1).data)"""
    drawn = wait_for(lambda: (pixel := browser.execute_script(colour, *at))[3] == 255 and pixel)
    object_colour = Image.open(dataset.path(0)).getpixel((int(left + width / 2), int(top + height / 2)))
    assert max(abs(a - b) for a, b in zip(drawn, object_colour, strict=False)) < 40

    tab_to(browser, ".card")
    press(browser, "ENTER")
    whole = wait_for(lambda: canvas_data(browser))
    assert canvas_data(browser, 1) == whole
    press(browser, "+", "+")
    larger = canvas_data(browser)
    assert larger != whole
    assert canvas_data(browser, 1) == larger
    press(browser, "SHIFT+RIGHT")
    assert canvas_data(browser) != larger
    assert canvas_data(browser) == canvas_data(browser, 1)
    press(browser, "0")
    assert canvas_data(browser) == whole
    press(browser, "ESCAPE")


def test_links_show_the_files_and_say_so_if_they_are_gone(tmp_path, browser):
    write_set(tmp_path, "val", 3)
    dataset = small_set(tmp_path)
    page = write_page(tmp_path / "page" / "report.html", dataset, rows_about(dataset, 9), how=LINK)
    dataset.path(1).unlink()
    assert "img-src data: file: 'self';" in page.read_text()
    open_page(browser, page, "images")
    wait_for(lambda: any("can't show ../images/val/2.png" in text for text in shown(browser, ".card")))
    assert sum("can't show" in text for text in shown(browser, ".card")) == 1
    browser.get_log("browser")  # which names the missing file


def test_thousands_of_images_without_pictures_have_few_cards_at_a_time(tmp_path, browser):
    write_set(tmp_path, "val", 2)
    count, size = 2000, {"width": 64, "height": 64}
    images = [{"id": n, "file_name": f"{n:04}.png", **size} for n in range(1, count + 1)]
    change_json(tmp_path / "val.json", lambda content: content.update(images=images))
    dataset = small_set(tmp_path)
    rows = [row(n, 1, [n % 50, 5, 10, 10], 0.9) for n in range(1, count + 1)] + rows_about(dataset, 9)
    open_page(browser, write_page(tmp_path / "page" / "report.html", dataset, rows), "images")
    assert text_of(browser, ".matching") == "2,000 of 2,000 images match"
    assert 0 < len(shown(browser, ".card")) < 100
    tab_to(browser, "#images-sort")
    press(browser, "f", "i")  # file name
    tab_to(browser, ".card")
    assert "0001.png" in browser.switch_to.active_element.text
    press(browser, *["PAGE_DOWN"] * 12)
    assert 0 < len(shown(browser, ".card")) < 100
    press(browser, "END")
    assert "2000.png" in browser.switch_to.active_element.text
    assert "no such file" in browser.switch_to.active_element.text
    assert 0 < len(shown(browser, ".card")) < 100
    press(browser, "ENTER")
    assert "no such file" in text_of(browser, "#viewer .note")
    assert any("0.900, background" in text for text in shown(browser, "#viewer .items button"))
    press(browser, "ESCAPE")
    tab_to(browser, "#images-size", back=True)
    press(browser, "l")  # large
    wait_for(lambda: text_of(browser, ".matching").startswith("0 of"))
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert not shown(browser, ".card")
    press(browser, "HOME")
    wait_for(lambda: text_of(browser, ".matching").startswith("2,000 of"))
    browser.execute_script("window.dispatchEvent(new Event('beforeprint'))")
    assert len(shown(browser, ".card")) >= 24
    assert not browser.get_log("browser")


def test_an_object_found_above_the_highest_score_shown_is_not_one_that_is_not_found(tmp_path, browser):
    write_set(tmp_path, "val", 6)
    dataset = small_set(tmp_path)
    page = write_page(tmp_path / "page" / "report.html", dataset, rows_about(dataset, 9))
    open_page(browser, page, "images")
    tab_to(browser, "#images-kind")
    press(browser, "n")
    tab_to(browser, "[aria-label='Score at most']")
    press(browser, *"0.6")
    wait_for(lambda: text_of(browser, ".matching").startswith("0 of 6 images match: not found"))


def suspects_of(dataset):
    """Returns one suspect of each kind, in the content of label_suspects.json."""
    annotations = dataset.annotations
    boxes = annotations.boxes.tolist()
    ids = annotations.category_ids
    suggested = {"suggested_category_id": ids[1], "suggested_bbox": [1, 2, 30, 20], "score": 0.9}
    only_class = {"suggested_category_id": ids[0], "suggested_bbox": None, "score": 0.8}
    nothing = {"suggested_category_id": None, "suggested_bbox": None, "score": None}
    labels = [
        ("missing object", None, suggested),
        ("wrong class", 1, only_class | {"suggested_category_id": ids[1 - annotations.labels[1]]}),
        ("badly placed box", 2, suggested | {"suggested_category_id": ids[annotations.labels[2]]}),
        ("box without an object", 3, nothing),
        ("same object twice", 4, nothing),
    ]
    suspects = [
        {
            "id": number,
            "kind": kind,
            "probability": 0.9 - number / 10,
            "image_id": int(annotations.image_ids[number]),
            "file_name": annotations.file_name(number),
            "annotation_id": None if label is None else label + 1,
            "category_id": None if label is None else ids[annotations.labels[label]],
            "bbox": None if label is None else boxes[label],
            "other_annotation_id": 1 if kind == "same object twice" else None,
            **suggestion,
        }
        for number, (kind, label, suggestion) in enumerate(labels)
    ]
    return {
        "set_name": "val",
        "annotations": {"file": str(annotations.path), "sha256": annotations.fingerprint},
        "classes": [
            {"id": category_id, "name": name} for category_id, name in zip(ids, annotations.class_names, strict=True)
        ],
        "suspects": suspects,
    }


def test_keys_decide_five_suspects_which_stay_over_a_reload_are_saved_and_change_the_set(tmp_path, browser):
    before = write_set(tmp_path / "data", "val", 6)
    dataset = small_set(tmp_path / "data")
    suspects = suspects_of(dataset)
    page = write_page(tmp_path / "page" / "report.html", dataset, rows_about(dataset, 9), suspects=suspects)
    open_page(browser, page, "labels")
    buttons = "#labels .decisions button:not([hidden])"
    assert shown(browser, buttons) == ["Right as it is (r)", "Add the object (a)", "Skip (s)"]
    press(browser, "c", "b", "d")  # which make no sense here
    assert "0 of 5 decided" in text_of(browser, "#labels")
    press(browser, "a")
    assert "2 of 5: wrong class" in text_of(browser, "#labels h2")
    assert "Take the suggested box (b)" not in shown(browser, buttons)
    press(browser, "d", "u", "c", "b", "r", "u", "d", "d")
    assert "5 of 5 decided" in text_of(browser, "#labels")
    browser.refresh()
    assert "5 of 5 decided" in text_of(browser, "#labels")
    tab_to(browser, "#save-decisions")
    press(browser, "ENTER")
    saved = browser.downloads / "decisions.json"
    wait_for(saved.exists)
    content = json.loads(saved.read_text())
    assert content["annotations"] == suspects["annotations"]
    assert content["set_name"] == "val"
    decided = [
        (each["decision"], each["annotation_id"], each["category_id"], each["bbox"]) for each in content["decisions"]
    ]
    wrong = suspects["suspects"][1]["suggested_category_id"]
    assert decided == [
        ("add", None, 2, [1, 2, 30, 20]),
        ("class", 2, wrong, None),
        ("box", 3, None, [1, 2, 30, 20]),
        ("delete", 4, None, None),
        ("delete", 5, None, None),
    ]
    assert [each["file_name"] for each in content["decisions"]] == [f"{number}.png" for number in range(1, 6)]
    assert not browser.get_log("browser")

    fixed = tmp_path / "fixed"
    words = [tmp_path / "data", "--decisions", saved, "--output_path", fixed]
    assert convert(convert_settings([str(word) for word in words])) == 0
    labels = {label["id"]: (label["category_id"], label["bbox"]) for label in before["annotations"]}
    (new,) = {label["id"] for label in json.loads((fixed / "val.json").read_text())["annotations"]} - set(labels)
    changed = labels | {2: (wrong, labels[2][1]), 3: (labels[3][0], [1, 2, 30, 20]), new: (2, [1, 2, 30, 20])}
    del changed[4], changed[5]
    assert {
        label["id"]: (label["category_id"], label["bbox"])
        for label in json.loads((fixed / "val.json").read_text())["annotations"]
    } == changed


def test_two_decisions_that_change_a_label_differently_are_pointed_out(tmp_path, browser):
    write_set(tmp_path, "val", 6)
    dataset = small_set(tmp_path)
    suspects = suspects_of(dataset)
    last, ids = suspects["suspects"][4], dataset.annotations.category_ids
    last |= {"annotation_id": 4, "image_id": suspects["suspects"][3]["image_id"]}
    last["suggested_category_id"] = sum(ids) - last["category_id"]
    page = write_page(tmp_path / "page" / "report.html", dataset, rows_about(dataset, 9), suspects=suspects)
    open_page(browser, page, "labels")
    press(browser, "RIGHT", "RIGHT", "RIGHT", "d")
    assert not text_of(browser, "#labels .warning")
    press(browser, "d")  # the same again
    assert not text_of(browser, "#labels .warning")
    press(browser, "u", "c")
    assert text_of(browser, "#labels .warning").startswith("Suspect 4 already changes this label")


def test_names_are_text_whatever_is_in_them_and_fit_a_narrow_window(tmp_path, browser):
    write_set(tmp_path, "val", 6)
    long, images = "W" * 10_000, tmp_path / "images" / "val"

    def rename(content):
        content["categories"][0]["name"], content["categories"][1]["name"] = AWKWARD, long
        content["images"][0]["file_name"], content["images"][1]["file_name"] = AWKWARD, f"{long}.png"

    change_json(tmp_path / "val.json", rename)
    assert (images / "1.png").exists()  # but under a name that the set doesn't have
    dataset = small_set(tmp_path)
    page = write_page(tmp_path / "page" / "report.html", dataset, rows_about(dataset, 9), suspects=suspects_of(dataset))
    for tab in ("images", "labels"):
        open_page(browser, page, tab, width=400)
        if tab == "images":
            tab_to(browser, ".card")
            press(browser, "ENTER", "n", "p")
        widths = browser.execute_script(
            "return [document.documentElement, document.getElementById('viewer')].map((each) => each.scrollWidth)"
        )
        assert max(widths) <= 400
        assert not browser.find_elements("css selector", "#images b, #labels b, #viewer b, img[src=x]")
        assert "\u202e" not in browser.execute_script("return document.getElementById(arguments[0]).textContent", tab)
        if tab == "images":
            press(browser, "ESCAPE")
    assert "<b>bold</b>" in text_of(browser, "#labels")
    assert not browser.get_log("browser")
