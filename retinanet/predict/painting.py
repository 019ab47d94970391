"""Paints detections onto an image at its original size, without matplotlib, which would be too slow for videos."""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from retinanet.coco.boxes import boxes_of, corners_of
from retinanet.coco.results import Found
from retinanet.reports.fonts import font_file
from retinanet.reports.labels import class_colour, place_labels, shortened, text_colour

USUAL_SIDE = 480  # longer side in pixels at which text has its usual size; text grows with the square root of that side
TEXT_PIXELS, LINE_PIXELS, PAD = 15, 3, 0.15  # PAD is a fraction of the text size


def painted(image: Tensor, found: Found, class_names: list[str]) -> Image.Image:
    """Returns a picture of the uint8 `image` [3, h, w] with the boxes, names and scores of its detections."""
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    if not len(found.scores):
        return picture
    width, height = picture.size
    larger = max(0.7, (max(picture.size) / USUAL_SIDE) ** 0.5)
    line = max(1, round(LINE_PIXELS * larger))
    names = [
        f"{shortened(class_names[label])} {score:.2f}" for label, score in zip(found.labels, found.scores, strict=True)
    ]
    font = _font(font_file("".join(sorted(set("".join(names))))), round(TEXT_PIXELS * larger))
    pad = round(PAD * font.size)
    sizes = np.array([(font.getlength(name) + 2 * pad, font.size + 2 * pad) for name in names])
    corners = corners_of(found.boxes).clip(0, [width, height, width, height])
    places = place_labels(boxes_of(corners), sizes, width)
    places[:, 1] = places[:, 1].clip(0, max(0, height - sizes[0, 1]))
    draw = ImageDraw.Draw(picture)
    order = range(len(names) - 1, -1, -1)  # the highest scores on top
    for row in order:
        x1, y1, x2, y2 = corners[row].round().tolist()
        box = (x1, y1, max(x1, x2 - 1), max(y1, y2 - 1))
        draw.rectangle(box, outline="white", width=line + 2)  # visible on any background
        draw.rectangle(_grown(box, -1), outline=class_colour(found.labels[row]), width=line)
    for row in order:
        colour = class_colour(found.labels[row])
        left, top = places[row]
        draw.rectangle((left, top, left + sizes[row, 0], top + sizes[row, 1]), fill=colour)
        middle = (left + pad, top + sizes[row, 1] / 2)
        draw.text(middle, names[row], fill=text_colour(colour), font=font, anchor="lm")
    return picture


def _grown(box: tuple[float, float, float, float], by: float) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = box[0] - by, box[1] - by, box[2] + by, box[3] + by
    return x1, y1, max(x1, x2), max(y1, y2)


@cache
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)
