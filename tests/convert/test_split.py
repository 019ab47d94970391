from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retinanet.convert.sets import Box, Labelled, LabelledImage, LabelledSet
from retinanet.convert.split import split


def labelled(labels_of_images: list[list[int]]) -> Labelled:
    images = [
        LabelledImage(Path(f"clip{number // 5}_{number}.jpg"), f"clip{number // 5}_{number}.jpg", 9, 9, [])
        for number in range(len(labels_of_images))
    ]
    images = [
        image._replace(boxes=[Box(label, 0, 0, 1, 1) for label in labels])
        for image, labels in zip(images, labels_of_images, strict=True)
    ]
    return Labelled(["a", "b", "c"], [LabelledSet("all", images)])


@given(st.lists(st.lists(st.integers(0, 2), max_size=3), min_size=40, max_size=80), st.integers(0, 99))
def test_each_image_once_and_the_shares_kept(labels, seed):
    got = split(labelled(labels), (0.6, 0.2, 0.2), seed, None)

    names = [image.name for one in got.sets for image in one.images]
    assert sorted(names) == sorted(image.name for image in labelled(labels).sets[0].images)
    sizes = np.array([len(one.images) for one in got.sets])
    assert (abs(sizes - len(labels) * np.array([0.6, 0.2, 0.2])) <= 0.15 * len(labels) + 3).all()


def test_a_rare_class_is_in_every_set():
    labels = [[0]] * 95 + [[1]] * 5

    for seed in range(20):
        got = split(labelled(labels), (0.6, 0.2, 0.2), seed, None)
        rare = [sum(box.label == 1 for image in one.images for box in image.boxes) for one in got.sets]
        assert rare == [3, 1, 1]
        assert [len(one.images) for one in got.sets] == [60, 20, 20]


def test_groups_stay_together():
    got = split(labelled([[0]] * 100), (0.8, 0.2), 0, r"(clip\d+)_")

    clips = [{image.name.partition("_")[0] for image in one.images} for one in got.sets]
    assert not clips[0] & clips[1]
    assert [len(one.images) for one in got.sets] == [80, 20]


def test_another_seed_another_split():
    parts = [split(labelled([[0]] * 40), (0.5, 0.5), seed, None).sets[0].images for seed in (0, 0, 1)]

    assert parts[0] == parts[1] != parts[2]


def test_notes_of_the_reader_stay():
    got = split(
        labelled([[0]] * 4)._replace(notes=["rotated boxes are read as the upright boxes around them: 3"]),
        (0.5, 0.5),
        0,
        None,
    )

    assert got.notes == ["rotated boxes are read as the upright boxes around them: 3"]
