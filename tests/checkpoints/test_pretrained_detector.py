from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.built import small_network
from torch import nn
from torchvision.models.detection import retinanet_resnet50_fpn_v2
from torchvision.models.detection._utils import BoxCoder
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import _default_anchorgen

from retinanet.checkpoints import pretrained_detector
from retinanet.checkpoints.pretrained_detector import box_code, categories, coco_state
from retinanet.checkpoints.published_detectors import recognised, torchvision_anchors
from retinanet.detector import anchors
from retinanet.detector.anchors import ANCHORS_PER_CELL, DEFAULT_SHAPES, STRIDES, anchors_for
from retinanet.detector.boxes import decode
from retinanet.detector.settings import CHANNELS
from retinanet.runtime.errors import UserError

CPU = torch.device("cpu")
CATEGORIES = categories()
COCO_IDS = [row for row, name in enumerate(CATEGORIES) if name not in ("__background__", "N/A")]
KNOWN = [CATEGORIES[row].upper() for row in COCO_IDS]
UNKNOWN = ["N/A", "red", "__background__", "zebra "]
NAMES = ["red 2", *KNOWN, *UNKNOWN]
NEW = [0, *range(81, 85)]


def torchvisions_anchors(height, width):
    levels = [torch.zeros(1, 1, height // stride, width // stride) for stride in (8, 16, 32, 64, 128)]
    return _default_anchorgen()(ImageList(torch.zeros(1, 3, height, width), [(height, width)]), levels)[0]


@pytest.fixture(scope="module")
def detector():
    """torchvision's model with something random in each of its tensors."""
    torch.manual_seed(7)
    model = retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None).eval()
    for name, value in model.state_dict().items():
        if name.endswith("running_var"):
            value.uniform_(0.5, 2)
        elif value.is_floating_point() and value.ndim == 1:
            value.add_(0.1 * torch.randn_like(value))
    return model


@pytest.fixture(scope="module")
def state(detector):
    return detector.state_dict()


def load_detector(network, class_names, state, source):
    return pretrained_detector.load_detector(network, class_names, recognised(state, state, source), source)


def level_coded(num_classes, **options):
    """The network that torchvision's weights fit."""
    return small_network(num_classes, level_code=True, depth=50, channels=CHANNELS, head_norm="group", **options)


@pytest.fixture(scope="module")
def start():
    """A network that nothing is loaded into."""
    return level_coded(len(NAMES)).eval()


@pytest.fixture(scope="module")
def loaded(start, state):
    network = deepcopy(start)
    report = load_detector(network, NAMES, state, "detector.pth")
    assert report == (KNOWN, ["red 2", *UNKNOWN], [])
    return network


def test_the_logits_and_boxes_are_torchvisions(detector, loaded):
    images = torch.randint(0, 256, (1, 3, 128, 256), dtype=torch.uint8)
    with torch.no_grad():
        normalised = torch.stack([detector.transform.normalize(image / 255) for image in images])
        levels = list(detector.backbone(normalised).values())
        wanted = detector.head(levels)
        anchors = detector.anchor_generator(ImageList(normalised, [(128, 256)]), levels)[0]
        boxes = detector.box_coder.decode_single(wanted["bbox_regression"][0], anchors)
        found = loaded(images)
    logits = wanted["cls_logits"][..., COCO_IDS]
    assert logits.std() > 0.1
    torch.testing.assert_close(found.logits[..., 1:81], logits, rtol=0, atol=1e-3)
    assert wanted["bbox_regression"].std() > 0.1
    assert (decode(found.deltas[0], anchors_for(128, 256, CPU)) - boxes).abs().max() < 0.01  # pixels


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(1, 5))
def test_the_box_code_of_any_deltas(seed, rows, columns):
    draw = torch.Generator().manual_seed(seed)
    height, width = 128 * rows, 128 * columns
    anchors = torchvisions_anchors(height, width)
    raw = torch.randn(len(anchors), 4, generator=draw).clamp(max=4)  # the cap of growth, 4.135, is each one's own
    code, parts = box_code(torchvision_anchors(), DEFAULT_SHAPES), []
    by_level = raw.double().split([ANCHORS_PER_CELL * height * width // stride**2 for stride in STRIDES])
    for part, scale, shift in zip(by_level, code.level_scale, code.level_shift, strict=True):
        output = part.view(-1, ANCHORS_PER_CELL, 4) * code.factor + code.summand
        parts.append((output * scale + shift).view(-1, 4))
    wanted = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0)).decode_single(raw.double(), anchors)
    found = decode(torch.cat(parts), anchors_for(height, width, CPU).double())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-3)
    # What goes on learning has nearly all of the code, so that it learns as the output of another model does.
    assert (code.level_scale - 1).abs().max() < 0.03
    assert code.level_shift.abs().max() < 0.2


def test_the_box_code_to_other_anchors():
    shapes = anchors.AnchorShapes(3, (0.4, 1.0, 2.5), (1.0, 1.3, 1.6))
    theirs = torchvisions_anchors(128, 256)
    raw = torch.randn(len(theirs), 4, generator=torch.Generator().manual_seed(0)).double().clamp(max=2)
    code, parts = box_code(torchvision_anchors(), shapes), []
    by_level = raw.split([ANCHORS_PER_CELL * 128 * 256 // stride**2 for stride in STRIDES])
    for part, scale, shift in zip(by_level, code.level_scale, code.level_shift, strict=True):
        output = part.view(-1, ANCHORS_PER_CELL, 4) * code.factor + code.summand
        parts.append((output * scale + shift).view(-1, 4))
    wanted = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0)).decode_single(raw, theirs)
    found = decode(torch.cat(parts), anchors_for(128, 256, CPU, shapes).double())
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-3)


def test_another_number_of_anchors_is_refused(state):
    network = level_coded(1, anchors=anchors.AnchorShapes(4, (1.0,)))
    with pytest.raises(UserError, match=r"detector\.pth: a detector with 9 anchors per cell, but the network has 3"):
        load_detector(network, ["red"], state, "detector.pth")


def test_known_classes_are_kept_and_others_start_random(loaded, state):
    output = loaded.classification_head.output
    weights, biases = output.weight.view(9, 85, 256, 3, 3), output.bias.view(9, 85)
    theirs = state["head.classification_head.cls_logits.weight"].view(9, 91, 256, 3, 3)
    assert torch.equal(weights[:, 1:81], theirs[:, COCO_IDS])
    assert torch.equal(biases[:, 1:81], state["head.classification_head.cls_logits.bias"].view(9, 91)[:, COCO_IDS])
    assert not weights[:, NEW].any()
    torch.testing.assert_close(biases[:, NEW].sigmoid(), torch.full((9, 5), 0.01))


def test_a_set_without_known_classes(state):
    network = level_coded(1)
    assert load_detector(network, ["red"], state, "detector.pth") == ([], ["red"], [])
    assert not network.classification_head.output.weight.any()
    assert network.regression_head.output.weight.any()


def test_older_names_of_the_pyramid_are_known(start, loaded, state):
    older = {
        name.replace(".0.weight", ".weight").replace(".0.bias", ".bias") if "_blocks." in name else name: value
        for name, value in state.items()
    }
    assert "backbone.fpn.inner_blocks.0.weight" in older
    network = deepcopy(start)
    load_detector(network, NAMES, older, "detector.pth")
    assert all(map(torch.equal, network.state_dict().values(), loaded.state_dict().values()))


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        ("head.regression_head.conv.2.1.bias", None, "a detector without head.regression_head.conv.2.1.bias"),
        ("backbone.body.layer3.0.bn1.running_mean", lambda value: 5, "a detector without backbone.body.layer3.0.bn1"),
        (
            "backbone.fpn.extra_blocks.p6.weight",
            lambda value: value[:, :256],
            r"p6.weight has shape \[256, 256, 3, 3\]",
        ),
        ("head.classification_head.cls_logits.bias", lambda value: value[:54], r"cls_logits.bias has shape \[54\]"),
        (
            "head.regression_head.bbox_reg.bias",
            lambda value: value / 0,
            "bbox_reg.bias holds values that are not finite",
        ),
        ("backbone.body.bn1.weight", lambda value: value.long(), "bn1.weight is not a plain tensor of floating-point"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_nothing_loaded(start, state, name, change, words):
    broken = {one: value for one, value in state.items() if one != name or change}
    if change:
        broken[name] = change(state[name])
    before = {one: value.clone() for one, value in start.state_dict().items()}
    with pytest.raises(UserError, match=rf"detector\.pth: .*{words}"):
        load_detector(start, NAMES, broken, "detector.pth")
    assert all(torch.equal(value, before[one]) for one, value in start.state_dict().items())


def test_a_resnet_is_no_detector():
    assert recognised({"conv1.weight": torch.zeros(1), "head.weight": torch.zeros(1)}, {}, "resnet.pth") is None
    assert recognised({}, {}, "empty.pth") is None


def test_the_weights_are_taken_from_the_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save({"a": torch.ones(2)}, tmp_path / "checkpoints" / "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth")
    assert torch.equal(coco_state()["a"], torch.ones(2))


def test_a_failed_download_says_where_to_put_the_file(unreachable_hub):
    with pytest.raises(UserError) as refused:
        coco_state()
    for words in (
        "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth",
        str(unreachable_hub / "checkpoints"),
        "--weights FILE",
    ):
        assert words in str(refused.value)


@pytest.mark.parametrize("kind", [nn.BatchNorm2d, nn.GroupNorm])
def test_normalisations_have_one_epsilon(detector, start, kind):
    theirs, ours = ([module.eps for module in one.modules() if isinstance(module, kind)] for one in (detector, start))
    assert len(theirs) > 0
    assert theirs == ours
