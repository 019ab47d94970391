"""How boxes are meant is told from pictures of plain objects, for each reading; what can't be told isn't."""

import numpy as np
import pytest
from support.readings import FILE_BOXES, scenes

from retinanet.data.box_fit import MOST_BOXES, BoxFit, BoxScores, possible_orders
from retinanet.data.box_verdict import FIT, NO_READING, OTHERWISE, TOO_FEW, UNTOLD, judge, words_of, z_of
from retinanet.data.edges import edges_of

NUM_IMAGES = 40


@pytest.fixture(scope="module")
def edges():
    return [edges_of(pixels) for pixels in scenes(NUM_IMAGES)[1]]


def scores_of(annotations, edges) -> BoxScores:
    fit = BoxFit(annotations)
    for image, each in enumerate(edges):
        fit.add(fit.look(image, each))
    return fit.scores()


def dealt(annotations, owners):
    """Gives each picture the boxes of another image."""
    return annotations._replace(boxes=annotations.boxes.reshape(-1, 3, 4)[owners].reshape(-1, 4))


@pytest.mark.parametrize("name", FILE_BOXES)
def test_each_reading_is_told(edges, name):
    verdict = judge(scores_of(scenes(NUM_IMAGES, name)[0], edges))
    assert (verdict.kind, verdict.reading) == (FIT if name == "as_given" else OTHERWISE, name)
    assert verdict.z > 3
    assert (verdict.num_objects, verdict.num_images) == (3 * NUM_IMAGES, NUM_IMAGES)


def test_boxes_one_image_further_are_told(edges):
    annotations = scenes(NUM_IMAGES)[0]
    verdict = judge(scores_of(dealt(annotations, np.roll(np.arange(NUM_IMAGES), 1)), edges))
    assert (verdict.kind, verdict.order) == (NO_READING, "of the previous image, in the order of the file's images")
    assert words_of(verdict).startswith("fit as boxes of the previous image, in the order of the file's images; z ")


def test_names_sorted_otherwise_are_told(edges):
    numbers = np.arange(1, NUM_IMAGES + 1)
    annotations = scenes(NUM_IMAGES)[0]._replace(file_names=np.array([f"{number}.png".encode() for number in numbers]))
    alphabetic = np.array(sorted(range(NUM_IMAGES), key=lambda image: str(numbers[image])))
    owners = np.empty_like(alphabetic)
    owners[alphabetic] = np.arange(NUM_IMAGES)  # the tool took 10.png for the second, the file has 2.png there
    verdict = judge(scores_of(dealt(annotations, owners), edges))
    assert verdict.kind == NO_READING
    assert "numbers" in verdict.order or "file's images" in verdict.order
    assert "the names" in verdict.order


@pytest.mark.parametrize("seed", range(5))
def test_boxes_of_any_other_images_are_never_called_right(edges, seed):
    owners = np.random.default_rng(seed).permutation(NUM_IMAGES)
    verdict = judge(scores_of(dealt(scenes(NUM_IMAGES)[0], owners), edges))
    assert verdict.kind in (NO_READING, UNTOLD)
    assert not verdict.order


def test_noise_tells_nothing():
    draw = np.random.default_rng(0)
    noise = [edges_of(draw.integers(0, 255, (96, 144, 3), dtype=np.uint8)) for _ in range(NUM_IMAGES)]
    assert judge(scores_of(scenes(NUM_IMAGES)[0], noise)).kind == UNTOLD


@pytest.mark.parametrize("room", [4, 6, -3])
def test_boxes_with_room_around_their_objects_are_not_read_otherwise(edges, room):
    annotations = scenes(NUM_IMAGES)[0]
    boxes = annotations.boxes + room * np.array([-1, -1, 2, 2])
    assert judge(scores_of(annotations._replace(boxes=boxes), edges)).kind == UNTOLD


def test_the_same_box_in_all_pictures_tells_nothing():
    draw = np.random.default_rng(0)
    annotations, pictures = scenes(NUM_IMAGES)
    same = annotations._replace(boxes=np.tile(annotations.boxes[:3], (NUM_IMAGES, 1)))
    noisy = (pictures[0] + draw.integers(0, 9, (NUM_IMAGES, *pictures[0].shape))).clip(0, 255).astype(np.uint8)
    assert judge(scores_of(same, [edges_of(pixels) for pixels in noisy])).kind == UNTOLD


@pytest.mark.parametrize("name", ["as_given", "centres"])
def test_boxes_of_whole_pictures_tell_nothing_beside_a_few_others(edges, name):
    annotations = scenes(NUM_IMAGES, name)[0]
    boxes = annotations.boxes.copy()
    boxes[12:] = [0, 0, 144, 96]
    assert judge(scores_of(annotations._replace(boxes=boxes), edges)).kind == UNTOLD


def test_few_boxes_are_not_judged(edges):
    annotations = scenes(19)[0]
    assert judge(scores_of(annotations, edges[:19])).kind == TOO_FEW
    scores = scores_of(scenes(NUM_IMAGES)[0], edges)
    assert judge(scores, scores.images < 13).kind == TOO_FEW  # 39 objects
    assert judge(scores, scores.images < 0).kind == TOO_FEW


def test_what_is_not_looked_at(edges):
    annotations = scenes(NUM_IMAGES)[0]
    crowds = np.zeros(3 * NUM_IMAGES, bool)
    crowds[:2] = True
    boxes = annotations.boxes.copy()
    boxes[5, 2] = 2.9
    fit = BoxFit(annotations._replace(crowds=crowds, boxes=boxes))
    assert fit.rows.tolist() == [2, 3, 4, *range(6, 3 * NUM_IMAGES)]
    many = 3 * MOST_BOXES
    first = np.array([0, many, many + 2])
    crowded = annotations._replace(
        sizes=annotations.sizes[:2], first=first, boxes=np.tile([5.0, 5, 9, 9], (many + 2, 1))
    )
    crowded = crowded._replace(crowds=np.zeros(many + 2, bool), image_ids=annotations.image_ids[:2])
    rows = BoxFit(crowded).rows
    assert len(rows) == MOST_BOXES + 2
    assert np.diff(rows[:MOST_BOXES]).tolist() == [3] * (MOST_BOXES - 1)


def test_chosen_images_are_judged_by_themselves(edges):
    annotations = scenes(NUM_IMAGES, "centres")[0]
    chosen = np.arange(5, NUM_IMAGES)
    fit = BoxFit(annotations, chosen)
    assert [image for image in range(NUM_IMAGES) if fit.is_needed(image)] == chosen.tolist()
    for image in chosen.tolist():
        fit.add(fit.look(image, edges[image]))
    verdict = judge(fit.scores())
    assert (verdict.reading, verdict.num_images) == ("centres", NUM_IMAGES - 5)


def test_orders_are_each_tried_once():
    annotations = scenes(12)[0]
    assert len(possible_orders(annotations)) == 2  # before and behind: all orders are the same
    assert possible_orders(scenes(1)[0]) == []
    numbered = annotations._replace(file_names=np.array([f"{number}.png".encode() for number in range(1, 13)]))
    owners = [tuple(order.owners.tolist()) for order in possible_orders(numbered)]
    assert len(set(owners)) == len(owners) == 6
    assert tuple(range(12)) not in owners


def test_the_errors_of_an_image_go_together():
    images = np.array([0, 0, 0, 2, 2, 5])
    differences = np.array([[1.0, 2.0], [2.0, np.nan], [0.5, 1.0], [3.0, 0.0], [1.0, 1.0], [-1.0, np.nan]])
    z, errors = z_of(differences, images)
    for column in range(2):
        values = [(value, image) for value, image in zip(differences[:, column], images, strict=True) if value == value]
        mean = sum(value for value, _ in values) / len(values)
        sums = {image: sum(value - mean for value, other in values if other == image) for image in {0, 2, 5}}
        error = (sum(each**2 for each in sums.values()) * 3 / 2) ** 0.5 / len(values)
        assert (z[column], errors[column]) == (pytest.approx(mean / error), pytest.approx(error))
