import numpy as np
import pytest
import torch
from PIL import Image
from support.data_folder import change_json, large_set

from retinanet.coco.annotation_cache import load_annotations
from retinanet.data.batches import Sample
from retinanet.data.dataloader import LoaderSettings, TrainingBatches, training_loader
from retinanet.data.dataset import CocoDataset
from retinanet.data.sampler import Draw
from retinanet.detector.structures import CROWD
from retinanet.reports import box_pictures
from retinanet.reports.augmented_panels import Place, augmented_panel, places_of_epochs
from retinanet.settings.draw import DrawSettings
from retinanet.settings.options import flat
from retinanet.settings.shared import Augmentation
from retinanet.settings.train import TrainSettings

HOW = ("--augmented", "--min_side", 64, "--max_side", 96)


@pytest.mark.parametrize(
    "flags",
    [
        ("--augment", "photometric"),
        ("--augment", "crop"),
        ("--augment", "zoom_out"),
        ("--augment", "jitter", "photometric"),
        ("--train_sides", 64, 80, 112, "--flip", 1),
        (),
    ],
)
def test_pictures_for_a_person_to_look_at(script, coco_path, tmp_path, monkeypatch, flags):
    monkeypatch.chdir(tmp_path)
    run = script("vis", "--coco_path", coco_path, *HOW, *flags, "--num_images", 2)
    assert (run.code, run.out) == (0, "Picture of 2 images, and of each in epochs 0 to 2: vis.png\n"), run.err
    width, height = Image.open(tmp_path / "vis.png").size
    side = box_pictures.PANEL_PIXELS
    assert (width, height) == (4 * side, 2 * side)  # a row for each image


def panels_of(script, monkeypatch, *arguments):
    """What vis.py draws."""
    seen = []
    draw_grid = box_pictures.draw_grid

    def spied(panels, *others, **how):
        seen.extend(panels)
        return draw_grid(panels, *others, **how)

    with monkeypatch.context() as patched:
        patched.setattr("retinanet.commands.draw.draw_grid", spied)
        run = script("vis", *arguments)
    assert run.code == 0, run.err
    return seen


@pytest.mark.parametrize("more", [(), ("--ignore_crowds",)])
def test_the_picture_is_what_training_has(script, coco_path, tmp_path, monkeypatch, more):
    monkeypatch.chdir(tmp_path)
    crowd = {"id": 99, "image_id": 3, "category_id": 1, "bbox": [0, 0, 60, 90], "area": 5400, "iscrowd": 1}
    change_json(coco_path / "train.json", lambda content: content["annotations"].append(crowd))
    flags = ("--train_sides", 64, 80, 112, "--augment", "crop", "photometric", "--seed", 11, "--batch_size", 3)
    panels = panels_of(script, monkeypatch, "--coco_path", coco_path, *HOW, *flags, *more, "--image_id", 3)
    annotations, folder = load_annotations(coco_path / "train.json"), coco_path / "images" / "train"
    dataset = CocoDataset(annotations, folder, 64, 96, keep_crowds=bool(more))
    how = Augmentation(augment=("crop", "photometric"), train_sides=(64, 80, 112))
    loader, sampler = training_loader(dataset, LoaderSettings(3), seed=11, augmentation=how)
    assert panels[0].title == "3.png (id 3)"
    for epoch, panel in enumerate(panels[1:]):
        sampler.start_at(epoch)
        (batch,) = [batch for batch, _ in loader if 2 in batch.rows]  # the image with id 3
        row = batch.rows.tolist().index(2)
        height, width = batch.sizes[row].tolist()
        assert panel.title.startswith(f"epoch {epoch}, side ")
        assert panel.title.endswith(f": {height} x {width}")
        assert np.array_equal(panel.image, batch.images[row, :, :height, :width].permute(1, 2, 0).numpy())
        labels = batch.targets.labels[row]
        for drawn, rows in ((panel.boxes, labels >= 0), (panel.outlines, labels == CROWD)):
            boxes = batch.targets.boxes[row][rows].numpy()
            assert np.allclose(drawn[:, :2] + drawn[:, 2:], boxes[:, 2:], atol=1e-3)
        assert len(panel.outlines) == len(more)
    assert len(panels) == 4


def test_defaults_are_those_of_train(script, coco_path, tmp_path, monkeypatch):
    for name in ("min_side", "max_side", "train_sides", "flip", "augment", "batch_size", "ignore_crowds"):
        assert flat(DrawSettings())[name] == flat(TrainSettings())[name]
    monkeypatch.chdir(tmp_path)
    unsaid = panels_of(script, monkeypatch, "--coco_path", coco_path, *HOW)
    said = panels_of(script, monkeypatch, "--coco_path", coco_path, *HOW, "--seed", 3407, "--set_name", "train")
    assert [panel.title for panel in unsaid] == [panel.title for panel in said]


def test_labels_below_zero_are_outlines():
    class Batches(TrainingBatches):
        def __init__(self):
            self.dataset = None

        def sample(self, epoch, index, side=None, window=None):
            boxes = torch.tensor([[1.0, 2, 5, 8], [0, 0, 9, 9]])
            return Sample(torch.zeros(3, 10, 12, dtype=torch.uint8), boxes, torch.tensor([4, -2]), torch.ones(2), 1)

    panel = augmented_panel(Batches(), Place(Draw(7, [0], (10, 12), 64), 0))
    assert panel.title == "epoch 7, side 64: 10 x 12"
    assert panel.boxes.tolist() == [[1, 2, 4, 6]]
    assert panel.labels.tolist() == [4]
    assert panel.outlines.tolist() == [[0, 0, 9, 9]]


def test_draws_of_the_first_epochs(coco_path):
    dataset = CocoDataset(load_annotations(coco_path / "train.json"), coco_path / "images" / "train", 64, 96)
    _, sampler = training_loader(dataset, LoaderSettings(3), seed=1)
    epochs = places_of_epochs(sampler, [2, 5])
    assert [sorted(places) for places in epochs] == [[2, 5]] * 3
    for epoch, places in enumerate(epochs):
        for index, (draw, number) in places.items():
            assert (draw.epoch, draw.indices[number]) == (epoch, index)


def test_a_tile_of_each_epoch(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = large_set(tmp_path / "data", "train")
    flags = ("--coco_path", data, *HOW, "--tile", 64, "--flip", 0, "--image_id", 1)
    whole, *tiles = panels_of(script, monkeypatch, *flags)
    pixels = whole.image
    for panel in tiles:
        height, width = panel.image.shape[:2]
        assert (height, width) == (64, 64)
        windows = np.lib.stride_tricks.sliding_window_view(pixels, (64, 64, 3))[:, :, 0]
        assert (windows == panel.image).all(axis=(2, 3, 4)).any()  # a part of the image, as it is
    assert len({panel.image.tobytes() for panel in tiles}) == 3


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--augmented", "--vis_pred"), "--vis_pred is for pictures of detections"),
        (("--augmented", "--pred_file", "a.json"), "--pred_file is for pictures of detections"),
        (("--augmented", "--threshold", 0.3), "--threshold is for pictures of detections"),
        (("--augmented", "--logs", "a.log"), "--augmented is for pictures of images"),
        (("--augment", "crop"), "--augment only applies to --augmented"),
        (("--train_sides", 64), "--train_sides only applies to --augmented"),
        (("--min_side", 64), "--min_side only applies to --augmented"),
        (("--ignore_crowds",), "--ignore_crowds only applies to --augmented"),
        (("--augmented", "--augment", "crop", "jitter"), "Remove crop or jitter"),
        (("--augmented", "--max_side", 64), "--min_side 608 is larger than --max_side 64"),
        (("--augmented", "--image_id", 99), "has no image 99"),
    ],
)
def test_contradictions(script, coco_path, tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(coco_path.parent)
    run = script("vis", *flags)
    assert (run.code, message in run.err) == (2, True), run.err
    assert not (tmp_path / "vis.png").exists()


def test_an_image_that_can_t_be_read(script, coco_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (coco_path / "images" / "train" / "1.png").write_bytes(b"none")
    run = script("vis", "--coco_path", coco_path, *HOW, "--image_id", 1)
    assert (run.code, "1.png: can't be read as an image" in run.err) == (2, True)
