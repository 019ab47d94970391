"""Sets with objects and correct result files about them, made up from a seed: also such as look like mistakes.

Few classes, background rows, boxes that nobody clipped or that are rounded, crowds, objects in the same place.
"""

import json
from random import Random

from retinanet.coco.annotations import Annotations, read_annotations

COCO = [category_id for category_id in range(1, 91) if category_id not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]


def made_up(seed, folder) -> tuple[Annotations, list[dict]]:
    """A set, and the rows of a detector about it."""
    draw = Random(seed)
    known = category_ids(draw)
    images = [
        {
            "id": image_id,
            "file_name": f"{image_id}.jpg",
            "width": draw.randint(20, 999),
            "height": draw.randint(20, 999),
        }
        for image_id in draw.sample(range(1000), draw.randint(1, 5))
    ]
    shown = classes_found(draw, known)
    objects = [one for image in images for one in objects_of(draw, image, shown)]
    content = {
        "images": images,
        "categories": [{"id": number, "name": str(number)} for number in known],
        "annotations": [{"id": i, "iscrowd": 0, **one} for i, one in enumerate(objects, start=1)],
    }
    path = folder / "made_up.json"
    path.write_text(json.dumps(content))
    detector = Detector(draw)
    return read_annotations(path), in_some_order(draw, detector.rows(images, objects, known, shown))


def category_ids(draw) -> list[int]:
    number = draw.randint(1, 12)
    return draw.choice(
        [
            list(range(1, number + 1)),
            list(range(number)),
            COCO,
            sorted(draw.sample(COCO, number)),
            sorted(draw.sample(range(2 * number), number)),
            sorted(draw.sample(range(2**40), number)),
            [draw.randrange(100)],
        ]
    )


def classes_found(draw, known) -> list[int]:
    few = draw.randint(1, len(known))
    return draw.choice([known, known[:few], known[-few:], known[:-1] or known, draw.sample(known, few)])


def objects_of(draw, image, shown) -> list[dict]:
    """Small, large or as large as the image; some two in one place."""
    objects = []
    least, most = draw.choice([(0.02, 0.2), (0.1, 0.9), (0.7, 1.0), (1.0, 1.0)])
    for _ in range(draw.randrange(8)):
        width, height = (image[side] * draw.uniform(least, most) for side in ("width", "height"))
        left, top = (image["width"] - width) * draw.random(), (image["height"] - height) * draw.random()
        for _ in range(draw.choice([1, 1, 1, 2])):
            one = {"image_id": image["id"], "category_id": draw.choice(shown), "bbox": [left, top, width, height]}
            objects.append({**one, "area": width * height})
    return objects


class Detector:
    """Finds objects more or less, and what isn't there; writes boxes and scores in a form of its own."""

    def __init__(self, draw: Random) -> None:
        self.draw = draw
        self.jitter = draw.choice([0, 0.02, 0.1, 0.3])
        self.clips, self.rounds = draw.random() < 0.5, draw.random() < 0.3
        self.digits = draw.choice([1, 3, 16])

    def rows(self, images, objects, known, shown) -> list[dict]:
        draw = self.draw
        by_id = {image["id"]: image for image in images}
        rows = []
        for one in objects:
            for _ in range(draw.randrange(4)):  # nothing suppressed the worse ones
                sides = one["bbox"][2:] * 2
                box = [
                    number + draw.gauss(0, self.jitter) * side for number, side in zip(one["bbox"], sides, strict=True)
                ]
                category_id = one["category_id"] if draw.random() < 0.8 else draw.choice(shown)
                rows += self.written(by_id[one["image_id"]], box, category_id, draw.gauss(0.7, 0.3))
        for image in images:
            for _ in range(draw.choices([0, 5, 20, 150], [4, 3, 2, 1])[0]):
                sides = image["width"], image["height"]
                width, height = (side * draw.uniform(0.05, 1) for side in sides)
                box = [sides[0] * draw.random() - width / 2, sides[1] * draw.random() - height / 2, width, height]
                rows += self.written(image, box, draw.choice(shown), draw.uniform(0, 0.6))
        for category_id, number in strays(draw, known, len(rows)).items():
            for _ in range(number):
                box = [1, 1, draw.uniform(1, 20), draw.uniform(1, 20)]
                rows += self.written(draw.choice(images), box, category_id, draw.random())
        return rows

    def written(self, image, box, category_id, score) -> list[dict]:
        """The row, or none where the box has no area."""
        left, top, width, height = box
        if self.clips:
            right, bottom = min(left + width, image["width"]), min(top + height, image["height"])
            left, top = max(left, 0), max(top, 0)
            width, height = right - left, bottom - top
        box = [float(round(number) if self.rounds else number) for number in (left, top, width, height)]
        score = round(min(max(score, 0.0), 1.0), self.digits)
        row = {"image_id": image["id"], "category_id": category_id, "bbox": box, "score": score}
        return [row] if box[2] > 0 and box[3] > 0 else []


def strays(draw, known, num_rows) -> dict[int, int]:
    """Rows of a background class, of which there may be many, and a few of ids between the set's."""
    counts = {}
    if draw.random() < 0.4:
        background = draw.choice([0, known[0] - 1, known[-1] + 1])
        counts[background] = int(num_rows * draw.choice([0, 0.01, 0.3, 2])) + 1
    if draw.random() < 0.2:
        counts |= {draw.randint(known[0], known[-1]): 1 for _ in range(3)}
    return {number: count for number, count in counts.items() if number not in known}


def in_some_order(draw, rows) -> list[dict]:
    """By image, by score or mixed."""
    return draw.choice([rows, sorted(rows, key=lambda row: -row["score"]), draw.sample(rows, len(rows))])
