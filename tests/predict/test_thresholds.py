"""A detector may have a threshold for each class."""

import numpy as np
import pytest
from support.checkpoint_files import random_checkpoint

from retinanet import Detector
from retinanet.runtime.errors import UserError

pytestmark = pytest.mark.usefixtures("narrow_network")


@pytest.mark.parametrize("own", [0.02, 0.2, 0.6])
@pytest.mark.parametrize("how", [{}, {"tile": 64}, {"max_detections": 8}])
def test_each_class_gets_exactly_what_its_threshold_for_all_classes_gives_it(tmp_path, coco_path, own, how):
    path, images = random_checkpoint(tmp_path / "best.pt"), sorted((coco_path / "images" / "val").iterdir())
    common = Detector(path, "cpu", threshold=0.2, **how)(images)
    for_red = Detector(path, "cpu", threshold=own, **how)(images)
    by_class = Detector(path, "cpu", threshold={None: 0.2, "red": own}, **how)(images)

    for one, other, red in zip(by_class, common, for_red, strict=True):
        for label, same in ((0, red), (1, other)):
            for part, same_part in zip(one[:3], same[:3], strict=True):
                assert np.array_equal(part[one.labels == label], same_part[same.labels == label])
    assert sum(len(one.scores) for one in common) > 20


def test_classes_without_one_get_the_weights_files(tmp_path, coco_path):
    path, image = random_checkpoint(tmp_path / "best.pt", score_threshold=0.125), coco_path / "images" / "val" / "1.png"
    detector = Detector(path, "cpu", threshold={"green": 0.5})
    assert "threshold=0.125, 0.5 for green, " in repr(detector)
    found = detector(image)
    assert found.scores[found.labels == 0].min() < 0.5 < found.scores[found.labels == 1].min()
    assert "threshold=0.5 for green, " in repr(Detector(path, "cpu", threshold={"green": 0.5}, classes=["green"]))


@pytest.mark.parametrize(
    ("threshold", "message"),
    [
        ({"blue": 0.5}, r"^threshold blue=0.5: .*best.pt has no class 'blue'. Its classes are red, green"),
        ({"red": 1.5}, "^threshold red=1.5: is not a score from 0 to 1"),
        (-0.5, "^threshold -0.5: is not a score from 0 to 1"),
    ],
)
def test_what_is_no_threshold_is_refused(tmp_path, threshold, message):
    path = random_checkpoint(tmp_path / "best.pt")
    with pytest.raises(UserError, match=message):
        Detector(path, "cpu", threshold=threshold)
