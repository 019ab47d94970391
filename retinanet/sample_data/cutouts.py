"""Cuts out the objects of the sample data from the photographs that come with scikit-image."""

import numpy as np
from PIL import Image
from skimage import data, draw, filters, measure, morphology, segmentation

SOFTNESS = 1.0  # pixels over which a cut-out's edge fades
# Outlines (x, y), traced by hand on the photographs.
CAT = (
    (75, 0), (330, 0), (345, 40), (358, 100), (362, 135), (350, 165), (335, 195), (318, 235), (300, 262), (270, 280),
    (235, 288), (200, 280), (165, 262), (130, 250), (90, 225), (55, 195), (35, 150), (30, 110), (38, 60), (50, 20),
)  # fmt: skip
ASTRONAUT = (
    (195, 22), (230, 14), (265, 24), (290, 50), (301, 85), (297, 112), (284, 135), (268, 150), (262, 172), (290, 188),
    (302, 215), (305, 242), (322, 264), (340, 276), (353, 292), (360, 320), (366, 348), (400, 343), (440, 355),
    (470, 385), (490, 425), (497, 460), (504, 511), (26, 511), (20, 440), (34, 380), (40, 300), (60, 265), (108, 228),
    (110, 190), (132, 160), (166, 146), (178, 150), (180, 132), (164, 118), (153, 90), (155, 65), (166, 42),
)  # fmt: skip


def cutouts() -> dict[str, list[Image.Image]]:
    """Returns RGBA pictures of the objects of each class, cut out along their outlines."""
    return {
        "coin": _coins(),
        "cat": [_cut(data.chelsea(), _polygon(CAT, data.chelsea()))],
        "astronaut": [_cut(data.astronaut(), _polygon(ASTRONAUT, data.astronaut()))],
        "cup": [_cut(data.coffee(), _cup())],
        "motorcycle": [_cut(data.stereo_motorcycle()[0], _motorcycle())],
    }


def backgrounds() -> list[Image.Image]:
    """Returns grey photographs of brick, grass and gravel, onto which the objects are pasted."""
    return [Image.fromarray(texture) for texture in (data.brick(), data.grass(), data.gravel())]


def _cut(photograph: np.ndarray, mask: np.ndarray) -> Image.Image:
    if photograph.ndim == 2:
        photograph = np.stack([photograph] * 3, axis=2)
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    opacity = filters.gaussian(morphology.erosion(mask).astype(float), SOFTNESS) * mask
    return Image.fromarray(np.dstack([photograph, (opacity * 255).astype(np.uint8)])[window])


def _polygon(outline: tuple[tuple[int, int], ...], photograph: np.ndarray) -> np.ndarray:
    x, y = np.array(outline).T
    return draw.polygon2mask(photograph.shape[:2], np.stack([y, x], axis=1))


def _cup() -> np.ndarray:
    mask = np.zeros(data.coffee().shape[:2], bool)
    for row, column, height, width in ((228, 279, 158, 199), (115, 290, 96, 117)):  # the saucer, the cup's rim
        mask[draw.ellipse(row, column, height, width, shape=mask.shape)] = True
    return mask


def _motorcycle() -> np.ndarray:
    """Returns a mask of the motorcycle, which the disparity map shows to be nearer than the wall and the floor."""
    disparity = np.nan_to_num(data.stereo_motorcycle()[2], posinf=0)
    rows = np.arange(len(disparity))[:, None]
    floor = np.interp(rows, *_floor(disparity))
    near = (disparity > 33) & (disparity > floor + 2.5)
    parts = measure.label(morphology.opening(morphology.closing(near, morphology.disk(3)), morphology.disk(3)))
    return parts == np.bincount(parts[parts > 0]).argmax()


def _floor(disparity: np.ndarray) -> tuple[tuple[int, int], tuple[float, float]]:
    """Returns two rows and the floor's disparity in each, measured at the image's sides, where only the floor shows."""
    high, low = 350, 495
    edges = np.concatenate([disparity[:, :60], disparity[:, -20:]], axis=1)
    return (high, low), (float(np.median(edges[high])), float(np.median(edges[low])))


def _coins() -> list[Image.Image]:
    photograph = data.coins()
    bright = photograph > filters.threshold_otsu(photograph)
    mask = morphology.opening(morphology.closing(bright, morphology.disk(2)), morphology.disk(4))
    pictures = []
    for part in measure.regionprops(measure.label(segmentation.clear_border(mask))):
        if part.area_convex > 800:  # smaller parts are scratches on the table
            coin = np.zeros(photograph.shape, bool)
            coin[part.slice] = part.image_convex  # the convex hull fills a dark coat of arms on a coin
            pictures.append(_cut(photograph, coin))
    return pictures
