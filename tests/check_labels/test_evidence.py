"""What the regions of an image say about boxes, compared with a literal loop."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retinanet.check_labels.evidence import AT_BOX, LEVELS, NEAR, evidence_at
from retinanet.evaluation.regions import ImageRegions


def iou(box, other):
    width = min(box[0] + box[2], other[0] + other[2]) - max(box[0], other[0])
    height = min(box[1] + box[3], other[1] + other[3]) - max(box[1], other[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (box[2] * box[3] + other[2] * other[3] - shared)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_regions=st.integers(0, 12),
    num_boxes=st.integers(0, 4),
    num_classes=st.integers(1, 4),
)
def test_equals_a_loop(seed, num_regions, num_boxes, num_classes):
    draw = np.random.default_rng(seed)

    def boxes(count):
        return np.concatenate([draw.uniform(0, 6, (count, 2)), draw.uniform(8, 12, (count, 2))], axis=1)

    seen, given_boxes, labels = boxes(num_regions), boxes(num_boxes), draw.integers(num_classes, size=num_boxes)
    scores = draw.random((num_regions, num_classes))
    evidence = evidence_at(ImageRegions(0, seen, scores), given_boxes, labels)
    for row, (box, label) in enumerate(zip(given_boxes, labels, strict=True)):
        overlaps = [iou(box, other) for other in seen]

        def best(limit, classes, overlaps=overlaps):
            numbers = [(scores[n, c], -c) for n, o in enumerate(overlaps) if o >= limit for c in classes]
            return max(numbers, default=(0, 0))

        others = [c for c in range(num_classes) if c != label]
        assert np.allclose(evidence.scores[row], [best(level, [label])[0] for level in LEVELS])
        assert np.isclose(evidence.other_scores[row], best(AT_BOX, others)[0])
        if evidence.other_scores[row]:
            assert evidence.other_labels[row] == -best(AT_BOX, others)[1]
        assert np.isclose(evidence.own_scores[row], best(NEAR, [label])[0])
        for consensus, at in ((evidence.own_boxes, label), (evidence.any_boxes, -best(NEAR, range(num_classes))[1])):
            near = [n for n, overlap in enumerate(overlaps) if overlap >= NEAR]
            good = [n for n in near if scores[n, at] >= max(scores[m, at] for m in near) / 2]
            weights = [scores[n, at] ** 2 for n in good]
            expected = np.average(seen[good], axis=0, weights=weights) if good else box
            assert np.allclose(consensus[row], expected)
