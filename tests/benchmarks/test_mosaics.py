import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.accuracy.mosaics import main
from retinanet.coco.annotations import read_annotations
from retinanet.runtime.errors import UserError

SIZES = {1: (100, 75), 2: (60, 90), 3: (200, 40), 4: (500, 376), 5: (90, 90)}  # the last without a kept class


@pytest.fixture
def photographs(tmp_path):
    """Black photographs, each with one white object."""
    for name in ("train", "val"):
        folder = tmp_path / "images" / name
        folder.mkdir(parents=True)
        images, objects = [], []
        for number, (width, height) in SIZES.items():
            box = [width // 4, height // 3, width // 2, height // 2]
            pixels = np.zeros((height, width, 3), np.uint8)
            pixels[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 255
            Image.fromarray(pixels).save(folder / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": width, "height": height})
            row = {"id": number, "image_id": number, "category_id": 2 if number == 5 else 1, "bbox": box, "iscrowd": 0}
            objects.append({**row, "area": box[2] * box[3]})
        categories = [{"id": 1, "name": "square"}, {"id": 2, "name": "other"}]
        content = {"images": images, "annotations": objects, "categories": categories}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def test_boxes_lie_on_their_objects(photographs, tmp_path):
    made = tmp_path / "made"
    assert main(["--coco_path", str(photographs), "--output_path", str(made), "--classes", "square"]) == 0
    for name, num_mosaics in (("train", 4), ("val", 2)):  # four photographs, each four times or twice
        loaded = read_annotations(made / f"{name}.json")
        assert loaded.class_names == ["square"]
        content = json.loads((made / f"{name}.json").read_text())
        assert (len(content["images"]), len(content["annotations"])) == (num_mosaics, 4 * num_mosaics)
        for image in content["images"]:
            pixels = np.asarray(Image.open(made / "images" / name / image["file_name"]).convert("L")) / 255
            assert pixels.shape == (376, 500)
            boxes = [row["bbox"] for row in content["annotations"] if row["image_id"] == image["id"]]
            inside = np.zeros_like(pixels, dtype=bool)
            for left, top, width, height in boxes:
                inside[round(top) : round(top + height), round(left) : round(left + width)] = True
                assert width <= 125 + 1  # half of a quarter's
                assert height <= 94 + 1
            assert pixels[inside].mean() > 0.95
            assert pixels[~inside].mean() < 0.02


def test_mistakes_are_refused_before_anything_is_written(photographs, tmp_path):
    flags = ["--coco_path", str(photographs), "--classes", "square"]
    with pytest.raises(UserError, match=r"train\.json has no class round\. Look at --classes"):
        main([*flags, "round", "--output_path", str(tmp_path / "made")])
    assert not (tmp_path / "made").exists()
    with pytest.raises(UserError, match="already exists"):
        main([*flags, "--output_path", str(photographs)])
