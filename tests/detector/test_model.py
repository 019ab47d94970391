import math

import pytest
import torch
from support.built import small_losses, small_network
from support.length import IS_LONG
from torch import nn
from torch.overrides import TorchFunctionMode

from retinanet.detector.anchors import ANCHORS_PER_CELL, anchors_for
from retinanet.detector.detect import detect
from retinanet.detector.loss import detection_loss
from retinanet.detector.model import GroupNorm, Head
from retinanet.detector.settings import CHANNELS, DEPTHS, DetectionSettings
from retinanet.detector.structures import Targets

CPU = torch.device("cpu")


@pytest.mark.parametrize("depth", DEPTHS)
def test_every_depth_trains_a_step_and_detects(depth):
    model = small_network(3, depth=depth, channels=16).train()
    images = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    targets = Targets(torch.tensor([[[8.0, 8, 44, 40]]]), torch.tensor([[1]]))
    anchors = anchors_for(64, 64, CPU)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(2):  # the output convolutions start at zero: behind them gradients come with the second step
        optimizer.zero_grad()
        losses = detection_loss(model(images), anchors, targets)
        (losses.classification + losses.regression).backward()
        optimizer.step()
    assert [name for name, value in model.named_parameters() if torch.equal(value, before[name])] == []
    detections = detect(model.eval()(images), anchors, torch.tensor([[64, 64]]), DetectionSettings(threshold=0.0))
    assert detections.boxes.shape == (1, 100, 4)
    assert torch.isfinite(detections.boxes).all()


@pytest.mark.parametrize("prior", [0.01, 0.2])
def test_every_score_starts_at_the_prior(prior):
    model = small_network(4, channels=16, prior=prior).eval()
    predictions = model(torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    torch.testing.assert_close(predictions.logits.sigmoid(), torch.full_like(predictions.logits, prior))
    assert (predictions.deltas == 0).all()


def test_start_of_the_towers_and_the_pyramid():
    model = small_network(4, channels=CHANNELS)
    for convolution in (*model.classification_head.tower, *model.regression_head.tower, *model.pyramid.children()):
        if isinstance(convolution, nn.Conv2d):
            fan_out = convolution.out_channels * convolution.kernel_size[0] ** 2
            assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.03)
            assert (convolution.bias == 0).all()


def test_pyramid_has_five_levels_and_p6_comes_from_c5():
    model = small_network().eval()
    maps = [torch.randn(1, 128, 16, 24), torch.randn(1, 256, 8, 12), torch.randn(1, 512, 4, 6)]
    levels = model.pyramid(*maps)
    assert [tuple(level.shape[2:]) for level in levels] == [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    torch.testing.assert_close(levels[3], model.pyramid.output6(maps[2]))
    torch.testing.assert_close(levels[4], model.pyramid.output7(levels[3].relu()))


def test_predictions_are_in_the_anchors_order():
    """A head that reports where it is: its output for a cell must stand at the anchors that are centred there."""
    model = small_network(channels=2).eval()
    head = model.regression_head
    head.tower = nn.Identity()
    with torch.no_grad():
        head.output.weight.zero_()
        for anchor in range(ANCHORS_PER_CELL):  # dx tells the column, dy the row, dw the anchor of the cell
            head.output.weight[4 * anchor, 0, 1, 1] = 1
            head.output.weight[4 * anchor + 1, 1, 1, 1] = 1
            head.output.bias[4 * anchor + 2] = anchor
    anchors, start = anchors_for(64, 96, CPU), 0
    for stride in (8, 16, 32, 64, 128):
        rows, columns = -(-64 // stride), -(-96 // stride)
        y, x = torch.meshgrid(torch.arange(rows).float(), torch.arange(columns).float(), indexing="ij")
        told = head(torch.stack([x, y])[None])[0]
        own = anchors[start : start + len(told)]
        centres, (width, height) = (own[:, :2] + own[:, 2:]) / 2, (own[:, 2:] - own[:, :2]).unbind(1)
        torch.testing.assert_close((told[:, :2] + 0.5) * stride, centres)
        ratio = torch.tensor([0.5, 1, 2])[(told[:, 2] // 3).long()]
        scale = 2 ** (told[:, 2] % 3 / 3)
        torch.testing.assert_close(height / width, ratio)
        torch.testing.assert_close((height * width).sqrt(), 4 * stride * scale)
        start += len(told)


def test_the_mean_colour_normalises_to_about_zero():
    model = small_network().eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(torch.tensor([124, 116, 104], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 32, 32))
    model(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    assert seen[0].abs().max() < 0.01
    torch.testing.assert_close(seen[1][0, :, 0, 0], torch.tensor([2.2489, 2.4286, 2.64]), rtol=1e-4, atol=1e-4)


def test_an_image_does_not_depend_on_its_neighbours():
    model = small_network().eval()
    images = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    alone = torch.cat([model(images[i : i + 1]).logits for i in range(3)])
    torch.testing.assert_close(model(images).logits, alone)


def test_a_groups_tower_is_convolution_normalisation_and_relu():
    head = Head(64, 4, 0.5, norm="group")
    assert [type(layer).__name__ for layer in head.tower] == ["Conv2d", "GroupNorm", "ReLU"] * 4
    for layer in head.tower[1::3]:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    level = wanted = torch.randn(2, 64, 3, 5)
    for convolution, norm in zip(head.tower[::3], head.tower[1::3], strict=True):
        assert convolution.bias is None
        groups = nn.functional.conv2d(wanted, convolution.weight, padding=1).view(2, 32, 2 * 15)
        mean, variance = groups.mean(dim=2, keepdim=True), groups.var(dim=2, keepdim=True, correction=0)
        normalised = ((groups - mean) / (variance + 1e-5).sqrt()).view(2, 64, 3, 5)
        wanted = (normalised * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)).relu()
    torch.testing.assert_close(head.tower(level), wanted, rtol=1e-4, atol=1e-4)


class PretendGpu(TorchFunctionMode):
    """Tensors say that they lie on a GPU. Notes the formats in which groups are normalised there."""

    def __init__(self):
        super().__init__()
        self.formats = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func == torch.Tensor.device.__get__:
            return torch.device("cuda")
        if func == torch.group_norm:
            self.formats = [*(tensor.dtype for tensor in (args[0], *args[2:4])), torch.is_autocast_enabled("cuda")]
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("precision", [torch.bfloat16, torch.float16, torch.float32])
def test_groups_are_normalised_in_the_networks_format_on_a_gpu(precision):
    norm = GroupNorm(32, 64)
    nn.init.normal_(norm.weight)
    features = torch.randn(2, 64, 3, 5).to(precision)
    torch.set_autocast_enabled("cuda", True)
    try:
        with PretendGpu() as gpu:
            found = norm(features)
    finally:
        torch.set_autocast_enabled("cuda", False)
    assert gpu.formats == [precision, precision, precision, False]
    assert found.dtype == precision
    torch.testing.assert_close(found.float(), norm(features.float()), rtol=0.02, atol=0.02)


def test_group_norm_starts_as_the_identity_and_trains():
    model = small_network(channels=64, head_norm="group").train()
    norms = [module for module in model.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == 8
    assert all((norm.weight == 1).all() and (norm.bias == 0).all() for norm in norms)
    images = torch.randint(0, 256, (1, 3, 128, 128), dtype=torch.uint8)
    targets = Targets(torch.tensor([[[8.0, 8, 44, 40]]]), torch.tensor([[1]]))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    before = {name: value.clone() for name, value in model.named_parameters()}
    for _ in range(2):  # see test_every_depth_trains_a_step_and_detects
        optimizer.zero_grad()
        sum(small_losses(model)(images, targets)).backward()
        optimizer.step()
    assert [name for name, value in model.named_parameters() if torch.equal(value, before[name])] == []


@pytest.mark.parametrize("train", [False, True])
def test_a_group_of_one_value_is_no_failure(train):
    """P7 of 64 x 64 pixels is one cell, which 32 channels leave one value for a group."""
    model = small_network(channels=32, head_norm="group").train(train)
    assert all(part.isfinite().all() for part in model(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)))


# Height and width of portraits and landscapes whose last levels are one column or a few.
NARROW = [(64, 32), (640, 32), (64, 64), (320, 64), (288, 96), (256, 128), (32, 160), (96, 128)]
ALL_NARROW = [
    *((width * ratio, width) for width in (32, 64, 96, 128, 160) for ratio in (1, 2, 3, 5, 10, 20)),
    *((height, width) for width in (64, 96, 128, 160) for height in range(32, width, 32)),
]


def relative_errors(found: dict, wanted: dict) -> dict[str, float]:
    return {name: ((found[name] - value).norm() / value.norm()).item() for name, value in wanted.items()}


@pytest.mark.parametrize(("height", "width"), ALL_NARROW if IS_LONG else NARROW)
@pytest.mark.parametrize("channels", [64, 128, 256] if IS_LONG else [64])
@pytest.mark.parametrize("depth", [18, 50] if IS_LONG else [18])
def test_bfloat16_is_near_float32_on_a_cpu_whatever_the_shape(depth, channels, height, width):
    """All shapes, widths and depths with RETINANET_LONG_TESTS=1."""
    torch.manual_seed(0)
    model = small_network(depth=depth, channels=channels)
    images = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    levels, gradients = [], []
    for is_rounded in (False, True):
        with torch.autocast("cpu", torch.bfloat16, enabled=is_rounded):
            found = model.levels(images)
        assert {level.dtype for level in found} == {torch.bfloat16 if is_rounded else torch.float32}
        levels.append({f"P{number}": level.detach().float() for number, level in enumerate(found, 3)})
        model.zero_grad()
        draw = torch.Generator().manual_seed(1)
        sum((level.float() * torch.randn(level.shape, generator=draw)).sum() for level in found).backward()
        of_model = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        gradients.append({name: value.clone() for name, value in of_model.items()})

    of_levels, of_gradients = relative_errors(*levels[::-1]), relative_errors(*gradients[::-1])

    assert all(error < 0.03 for error in of_levels.values()), of_levels
    # Each rounding flips some ReLUs, most of all in the ResNet.
    of_pyramid = {name: error for name, error in of_gradients.items() if name.startswith("pyramid")}
    assert all(error < 0.15 for error in of_pyramid.values()), max(of_pyramid.items(), key=lambda item: item[1])
    assert all(error < 1 for error in of_gradients.values()), of_gradients
