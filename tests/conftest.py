"""Provides small datasets, and the scripts as a user runs them."""

import json
import os
import sys
import urllib.error
from pathlib import Path

import pytest
import torch
from support.data_folder import write_set
from support.narrow import narrowed
from support.scripts import Finished, run_script

from retinanet.detector.backbone import Backbone
from retinanet.runtime.errors import FLAGS

# Several processes test at a time: none should take all cores, nor the scripts that they start.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"


SLOW = ("runtime", "gpu", "commands")  # folders with the slowest files


def pytest_collection_modifyitems(items):
    """Runs the slowest files first, because otherwise one of them would run alone at the end, and OpenVINO last.

    A process of pytest that had run OpenVINO ended without a message when a later test started loader workers, twice in
    two whole runs; the commands, which do both in one process, don't.
    """
    items.sort(key=lambda item: (bool(item.get_closest_marker("openvino")), item.path.parent.name not in SLOW))


@pytest.fixture(scope="session", autouse=True)
def _cache_folder(tmp_path_factory):
    """Keeps annotation caches of the tests out of the user's own folder."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def own_folder(tmp_path, monkeypatch):
    """Runs a test in a folder of its own, with caches of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def narrow_network():
    """Makes networks of depth 18 narrow in this process, for a file of tests whose subject is not the network."""
    with narrowed:
        yield


@pytest.fixture
def full_network(monkeypatch):
    """Restores torchvision's own network, which its weights fit, among tests with the narrow network."""
    monkeypatch.setattr("retinanet.detector.model.Backbone", Backbone)


@pytest.fixture
def script(capfd, monkeypatch):
    """Runs a script's main in this process as its `__main__` does: script("train", "--epochs", 1) -> Finished."""

    def call(name: str, *arguments: object) -> Finished:
        argv = [str(argument) for argument in arguments]
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *argv])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            run_script(name)
        out, err = capfd.readouterr()
        return Finished(int(ended.value.code or 0), out, err)

    return call


@pytest.fixture
def coco_path(tmp_path) -> Path:
    """Writes a data folder with 8 train, 5 val and 4 test images."""
    folder = tmp_path / "data"
    for name, count in (("train", 8), ("val", 5), ("test", 4)):
        write_set(folder, name, count)
    return folder


@pytest.fixture
def make_set(tmp_path):
    """Writes an annotation file of these boxes, (left, top, width, height) of each image; no image file exists."""

    def make(boxes_of_images: list[list[list[float]]], size=(96, 128), labels=None) -> Path:
        boxes = [(image, box) for image, boxes in enumerate(boxes_of_images) for box in boxes]
        labels = labels or [0] * len(boxes)
        content = {
            "images": [
                {"id": number, "file_name": f"{number}.png", "height": size[0], "width": size[1]}
                for number in range(len(boxes_of_images))
            ],
            "annotations": [
                {"id": number, "image_id": image, "category_id": label + 1, "bbox": box}
                for number, ((image, box), label) in enumerate(zip(boxes, labels, strict=True))
            ],
            "categories": [{"id": label + 1, "name": f"class {label}"} for label in range(max(labels) + 1)],
        }
        path = tmp_path / "made.json"
        path.write_text(json.dumps(content))
        return path

    return make


@pytest.fixture
def unreachable_hub(tmp_path, monkeypatch) -> Path:
    """Provides PyTorch's download folder, empty, and no network to fill it."""

    def no_network(*args, **kwargs):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", no_network)
    return tmp_path


@pytest.fixture(autouse=True)
def _fresh():
    """Starts each test with the same random numbers, and outside of any command."""
    torch.manual_seed(0)
    FLAGS.clear()
