from pathlib import Path

import numpy as np
import pytest
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


@pytest.mark.parametrize("shares", [(0.8, 0.2), (0.9, 0.1), (0.8, 0.1, 0.1)])
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("num_common", [0, 100])
def test_many_rare_classes_leave_the_shares_as_they_are(shares, count, num_common):
    labels = [[1 + number // count] for number in range(300)] + [[0]] * num_common

    got = split(labelled(labels), shares, 0, None)

    for one, share in zip(got.sets, shares, strict=True):
        assert len(one.images) == pytest.approx(share * len(labels), abs=0.1 * min(shares) * len(labels) + 1)
        assert sum(image.boxes[0].label == 0 for image in one.images) == pytest.approx(share * num_common)


def test_a_class_with_an_object_for_all_parts_but_the_smallest_is_divided():
    got = split(labelled([[0]] * 91 + [[1]] * 9), (0.8, 0.1, 0.1), 0, None)

    assert [sum(image.boxes[0].label == 1 for image in one.images) for one in got.sets] == [7, 1, 1]


def test_a_file_in_two_sets_goes_to_one_of_them(tmp_path):
    source = labelled([[0]] * 10)
    linked = [tmp_path / image.name for image in source.sets[0].images]
    for link, image in zip(linked, source.sets[0].images, strict=True):
        link.symlink_to(image.path.absolute())
    again = [image._replace(path=path) for image, path in zip(source.sets[0].images, linked, strict=True)]

    got = split(source._replace(sets=[*source.sets, LabelledSet("more", again)]), (0.5, 0.5), 0, r"(clip\d+)_")

    names = [image.name for one in got.sets for image in one.images]
    assert sorted(names) == sorted(image.name for image in source.sets[0].images)
    assert got.notes == [
        f"images that occur several times are used once, with their first labels; left out: 10, such as {linked[0]}"
    ]


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
