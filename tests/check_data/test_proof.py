"""What a proof concludes from what a network finds, and from the pixels."""

import numpy as np
import pytest
from support.data_folder import write_set

from retinanet.check_data import proof_verdict
from retinanet.check_data.box_texts import Misfit
from retinanet.check_data.proof import Part, Proof, num_steps, scores_at, z_found, z_found_as_any
from retinanet.check_data.proof_verdict import (
    BY_HEART,
    LEARNABLE,
    NOT_AT_ALL,
    NOT_ON_VAL,
    UNTOLD,
    WRONG,
    decide,
    decision_lines,
    renamed_classes,
)
from retinanet.coco.annotation_cache import load_annotations
from retinanet.coco.annotations import owners_of, subset_of
from retinanet.coco.results import Found
from retinanet.data.box_verdict import FIT, NO_READING, OTHERWISE
from retinanet.data.box_verdict import UNTOLD as UNSURE
from retinanet.data.dataset import CocoDataset
from retinanet.evaluation.matches import box_ious

NUM_IMAGES, NUM_CLASSES = 60, 4


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proof")
    write_set(folder, "val", 4)
    names, ids = ["ant", "bee", "cow", "dog"], [1, 2, 5, 9]
    annotations = load_annotations(folder / "val.json")._replace(class_names=names, category_ids=ids)
    return CocoDataset(annotations, folder / "images" / "val", 64, 96)


@pytest.fixture
def part_of(dataset):
    def part(gain, seed=0, classes=None, num_images=NUM_IMAGES, any_class=0.0):
        """A part with an object per image, found `gain` above chance as the class that `classes` gives its label."""
        draw = np.random.default_rng(seed)
        labels = draw.integers(NUM_CLASSES, size=num_images)
        others = draw.uniform(0, 0.1, (num_images, NUM_CLASSES))
        own = draw.uniform(0, 0.1, (num_images, NUM_CLASSES))
        found_as = labels if classes is None else np.array(classes)[labels]
        own[np.arange(num_images), found_as] += gain
        own[:] += any_class
        none = Found(np.zeros(0, int), np.zeros(0, int), np.zeros(0), np.zeros((0, 4)))
        return Part(dataset, none, np.arange(num_images), labels, own, others, 0.1, 0.2)

    return part


class Judged:
    """A judged set of which only the name, the verdict and the straightness of the pictures matter."""

    def __init__(self, name, path, straightness=0.6, kind=UNSURE):
        annotations = type("Annotations", (), {"path": path})
        dataset = type("Dataset", (), {"annotations": annotations})
        self.checked = type("Checked", (), {"name": name, "annotations": annotations, "dataset": dataset})
        self.verdict = type("Verdict", (), {"whole": type("Whole", (), {"kind": kind})})
        self.scores = type("Scores", (), {"straightness": straightness})


@pytest.fixture
def decided(part_of, dataset):
    def decide_on(
        trained, left, val, *, misfits=(), straightness=0.6, missed=0.0, num_trained=200, kind=UNSURE, **pixels
    ):
        mean, deviation = pixels.get("mean", 0.0), pixels.get("deviation", 1.0)
        parts = [part_of(each, seed) if isinstance(each, float) else each for seed, each in enumerate((trained, left))]
        of_val = part_of(val, 2) if isinstance(val, float) else val
        proof = Proof(*parts, of_val, num_trained, mean, deviation)
        path = dataset.annotations.path
        judged = [Judged("train", path.with_name("train.json"), straightness, kind), Judged("val", path)]
        return decide(proof, judged, misfits, missed, "--min_side 999")

    return decide_on


def test_the_verdict_follows_from_where_objects_are_found(decided):
    assert decided(0.3, 0.3, 0.3).verdict == LEARNABLE
    assert decided(0.3, 0.3, None).verdict == LEARNABLE
    assert decided(0.3, 0.0, 0.0).verdict == BY_HEART
    assert decided(0.3, 0.0, 0.0, kind=FIT).verdict == UNTOLD  # the boxes follow from the pictures
    assert decided(0.3, 0.3, 0.0).verdict == NOT_ON_VAL
    assert decided(0.0, 0.0, 0.0).verdict == UNTOLD
    assert decided(0.3, 0.0, 0.0, num_trained=20).verdict == UNTOLD  # few images are learned by heart
    codes = [decided(*gains).exit_code for gains in ((0.3, 0.3, 0.3), (0.3, 0.3, 0.0), (0.0, 0.0, 0.0))]
    assert codes == [0, 1, 3]


def misfit(set_name, kind, share=1.0):
    return Misfit(set_name, kind, share, "all boxes: fit in another way. Rewrite them: python -m retinanet.convert")


def test_what_the_pixels_say_is_the_first_cause(decided):
    told = decided(0.0, 0.0, 0.0, misfits=[misfit("train", NO_READING)])
    assert told.verdict == NOT_AT_ALL
    assert "fit in another way" in told.causes[0].says
    assert decided(0.3, 0.0, 0.0, misfits=[misfit("train", NO_READING)]).verdict == BY_HEART
    wrong = decided(0.3, 0.3, 0.3, misfits=[misfit("train", OTHERWISE)])
    assert wrong.verdict == WRONG
    assert wrong.exit_code == 1
    told = decided(0.3, 0.3, 0.0, misfits=[misfit("val", OTHERWISE)])
    assert told.verdict == NOT_ON_VAL
    assert "val" in told.causes[0].says
    noise = decided(0.3, 0.0, 0.0, straightness=0.2)
    assert noise.verdict == BY_HEART
    assert "without edges" in noise.causes[0].says


def test_boxes_that_are_learned_belong_to_their_images(decided):
    assert decided(0.3, 0.3, 0.3, misfits=[misfit("train", NO_READING)]).verdict == LEARNABLE
    assert decided(0.3, 0.3, 0.3, straightness=0.2).verdict == LEARNABLE
    assert decided(0.3, 0.3, 0.3, misfits=[misfit("train", OTHERWISE, share=0.1)]).verdict == LEARNABLE


def test_a_val_set_of_few_objects_is_not_blamed(decided, part_of):
    few = part_of(0.01, 9, num_images=8)
    assert z_found(few) <= proof_verdict.CHANCE
    assert decided(0.3, 0.04, few).verdict == UNTOLD


def test_classes_may_be_learned_by_heart_alone(decided, part_of):
    left = part_of(0.0, 1, any_class=0.3)
    told = decided(0.3, left, 0.3)
    assert told.verdict == BY_HEART
    assert "classes that don't follow" in told.causes[0].says
    assert decided(left, left, 0.3).verdict == UNTOLD  # not even the classes of trained objects: too little time
    one = left._replace(labels=np.zeros(len(left.labels), int))
    assert decided(0.3, one, 0.3).verdict == LEARNABLE  # a single class


def test_labels_that_nothing_explains_are_called_random(decided):
    assert "don't follow from the pictures" in decided(0.3, 0.0, 0.0).causes[0].says


def test_other_causes_need_a_failure(decided):
    assert decided(0.3, 0.3, 0.3, missed=0.9, mean=2.0).causes == []
    told = decided(0.3, 0.0, 0.0, missed=0.9, mean=-1.9, deviation=0.1)
    assert "weights were trained on" in told.causes[0].says
    assert "--min_side 999" in told.causes[1].fix
    assert len(decision_lines(told)) == 5


@pytest.mark.parametrize("classes", [(1, 2, 3, 0), (1, 0, 2, 3), (3, 2, 1, 0)])
def test_renamed_classes_are_told_by_how_objects_are_found(part_of, decided, classes):
    part = part_of(0.3, 5, classes)
    assert renamed_classes(part) == {old: new for old, new in enumerate(classes) if old != new}
    told = decided(0.3, 0.3, part)
    assert told.verdict == NOT_ON_VAL
    assert "class ids in" in told.causes[0].says
    ids = part.dataset.annotations.category_ids
    changes = ", ".join(f"{ids[old]} to {ids[new]}" for old, new in enumerate(classes) if old != new)
    assert f"({changes}; classes.png shows" in told.causes[0].fix


def test_classes_that_are_found_as_one_get_no_ids():
    assert "category_id to" not in proof_verdict.renaming({0: 2, 1: 2}, [1, 2, 3])


def test_right_or_random_classes_are_not_called_renamed(part_of):
    for seed in range(30):
        assert renamed_classes(part_of(0.3, seed)) == {}
        assert renamed_classes(part_of(0.0, seed)) == {}
    random = part_of(0.3, 1)
    assert renamed_classes(random._replace(labels=np.random.default_rng(2).permutation(random.labels))) == {}


def test_z_compares_an_object_with_its_place_in_other_images(part_of):
    assert z_found(part_of(0.3)) > proof_verdict.SURE > proof_verdict.CHANCE > abs(z_found(part_of(0.0, 3)))
    assert z_found_as_any(part_of(0.3, 0, (1, 2, 3, 0))) > proof_verdict.SURE
    assert z_found(part_of(0.3, 0, (1, 2, 3, 0))) < proof_verdict.CHANCE


def slow_scores(annotations, found, row, image, label, steps):
    """The highest score at the object's place, in its image, and the mean over the next images."""
    frames = annotations.sizes[:, ::-1].astype(float)
    best = []
    for step in range(steps + 1):
        other = (image + step) % len(frames)
        scale = np.tile(frames[other] / frames[image], 2)
        placed = annotations.boxes[row] * scale
        scores = [0.0]
        for place in np.flatnonzero((found.images == other) & (found.labels == label)):
            overlap = box_ious(placed[None, None], found.boxes[place][None, None], np.zeros((1, 1), bool))[0, 0, 0]
            scores += [found.scores[place]] if overlap >= 0.5 else []
        best.append(max(scores))
    return best[0], np.mean(best[1:])


def test_scores_equal_those_found_one_by_one(tmp_path):
    write_set(tmp_path, "train", 12)
    annotations = load_annotations(tmp_path / "train.json")
    draw = np.random.default_rng(4)
    number = 400
    images = np.sort(draw.integers(12, size=number))
    boxes = np.concatenate([draw.uniform(0, 30, (number, 2)), draw.uniform(20, 50, (number, 2))], axis=1)
    found = Found(images, draw.integers(2, size=number), draw.uniform(0, 1, number), boxes)
    rows = np.arange(len(annotations.boxes))
    owners = owners_of(annotations)
    own, others = scores_at(annotations, found, rows, owners)
    assert own.max() > 0
    for row in rows.tolist():
        for label in range(2):
            expected = slow_scores(annotations, found, row, int(owners[row]), label, 5)
            assert (own[row, label], others[row, label]) == pytest.approx(expected)


def test_a_subset_has_the_images_asked_for_in_their_order(tmp_path):
    write_set(tmp_path, "train", 6)
    annotations = load_annotations(tmp_path / "train.json")
    chosen = np.array([4, 5, 0])
    part = subset_of(annotations, chosen)
    assert [part.file_name(image) for image in range(3)] == [annotations.file_name(image) for image in chosen]
    for place, image in enumerate(chosen.tolist()):
        rows = slice(annotations.first[image], annotations.first[image + 1])
        assert part.boxes[part.first[place] : part.first[place + 1]].tolist() == annotations.boxes[rows].tolist()
    assert len(part.labels) == len(part.areas) == len(part.crowds) == part.first[-1] == 2


@pytest.mark.parametrize(("num_classes", "steps"), [(1, 440), (5, 440), (40, 367), (80, 275), (1203, 34)])
def test_with_many_classes_there_are_fewer_steps(num_classes, steps):
    assert num_steps(num_classes) == steps
