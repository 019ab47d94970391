import torch
from support.built import small_network

from retinanet.checkpoints.level_code import LevelCodedRetinaNet
from retinanet.detector.anchors import ANCHORS_PER_CELL, AnchorShapes, anchors_for


def test_the_levels_code_is_applied_by_level_and_anchor():
    model = small_network(kind=LevelCodedRetinaNet, random_outputs=True).eval()
    images = torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8)
    anchors_of_levels = [9 * -(-64 // stride) * -(-96 // stride) for stride in (8, 16, 32, 64, 128)]
    with torch.no_grad():
        plain = model(images).deltas
        model.level_scale.normal_()
        model.level_shift.normal_()
        coded = model(images).deltas.split(anchors_of_levels, dim=1)
    for level, (part, own) in enumerate(zip(plain.split(anchors_of_levels, dim=1), coded, strict=True)):
        for anchor in range(ANCHORS_PER_CELL):
            wanted = part[:, anchor::9] * model.level_scale[level, anchor] + model.level_shift[level, anchor]
            torch.testing.assert_close(own[:, anchor::9], wanted)
    assert "level_scale" in model.state_dict()
    assert not any("level" in name for name in small_network().state_dict())


def test_it_has_a_code_for_each_prediction():
    for shapes in (AnchorShapes(), AnchorShapes(4, (1.0,), (1.0, 1.5))):
        for size in ((32, 32), (64, 160), (33, 70), (1, 1)):
            network = small_network(kind=LevelCodedRetinaNet, anchors=shapes).eval()
            deltas = network(torch.zeros(1, 3, *size, dtype=torch.uint8)).deltas
            assert deltas.shape == (1, len(anchors_for(*size, torch.device("cpu"), shapes)), 4)
