import os
import re
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models import get_model

from retinanet.checkpoints.pretrained_backbone import depths_of, imagenet_state, load_backbone
from retinanet.checkpoints.state_dicts import read_state_file
from retinanet.detector.backbone import Backbone, conv2d, modules_of
from retinanet.detector.settings import BLOCKS, DEPTHS
from retinanet.runtime.errors import UserError


@pytest.fixture(scope="module")
def resnet18():
    torch.manual_seed(5)
    resnet = get_model("resnet18", weights=None)
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    return resnet.eval()


def test_gives_the_resnets_maps(resnet18):
    backbone = Backbone(18).eval()
    report = load_backbone(backbone, resnet18.state_dict(), "resnet18")
    assert (report.num_loaded, report.missing, report.unused) == (100, [], ["fc"])
    images = torch.randn(1, 3, 64, 96)
    c3, c4, c5 = backbone(images)
    assert [tuple(level.shape[1:]) for level in (c3, c4, c5)] == [(128, 8, 12), (256, 4, 6), (512, 2, 3)]
    torch.testing.assert_close(resnet18.fc(c5.mean(dim=(2, 3))), resnet18(images))


@pytest.mark.parametrize("depth", [18, 50])
def test_folded_normalisation_has_the_resnets_gradients(depth):
    resnet = get_model(f"resnet{depth}", weights=None).double()
    for module in resnet.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.1)
    backbone = Backbone(depth).double()
    load_backbone(backbone, resnet.state_dict(), "resnet")
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    resnet.eval()  # its own forward, convolution and normalisation one after the other
    resnet.fc = resnet.avgpool = nn.Identity()
    ((resnet(images) - 1) ** 2).mean().backward()
    ((backbone.train()(images)[2].flatten(1) - 1) ** 2).mean().backward()
    wanted = dict(resnet.named_parameters())
    for name, parameter in backbone.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name].grad, rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.parametrize(("depth", "width"), [(18, 512), (34, 512), (50, 2048), (101, 2048), (152, 2048)])
def test_out_channels_of_each_depth(depth, width):
    backbone = Backbone(depth).eval()
    shapes = [level.shape[1] for level in backbone(torch.zeros(1, 3, 32, 32))]
    assert tuple(shapes) == backbone.out_channels == (width // 4, width // 2, width)


def test_a_part_is_loaded_and_the_rest_reported(resnet18):
    part = {name: value for name, value in resnet18.state_dict().items() if not name.startswith(("layer4", "fc"))}
    backbone = Backbone(18)
    start = backbone.layer4[0].conv1.weight.clone()
    report = load_backbone(backbone, {**part, "head.weight": torch.zeros(1)}, "part.pth")
    assert (report.num_loaded, report.num_tensors) == (75, 100)
    assert report.missing == ["layer4"]
    assert report.unused == ["head"]
    assert torch.equal(backbone.layer3[0].conv1.weight, part["layer3.0.conv1.weight"])
    assert torch.equal(backbone.layer4[0].conv1.weight, start)
    # He-normal by fan-out, statistics of 0 and 1: the start that the fixed numbers ask for.
    assert start.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.02)
    assert (backbone.layer4[0].bn1.running_mean == 0).all()
    assert (backbone.layer4[0].bn1.running_var == 1).all()


@pytest.fixture(scope="module")
def names():
    """The names of each ResNet's tensors, in their order."""
    with torch.device("meta"):
        return {depth: list(get_model(f"resnet{depth}", weights=None).state_dict()) for depth in DEPTHS}


def up_to(names, stage):
    return [name for name in names if not name.startswith(tuple(f"layer{later}" for later in range(stage + 1, 5)))]


@pytest.mark.parametrize("depth", DEPTHS)
def test_the_depth_of_a_file_is_seen(names, depth):
    assert depths_of(names[depth]) == [depth]
    for stage in range(5):
        alike = [other for other in DEPTHS if stage == 0 or up_to(names[other], stage) == up_to(names[depth], stage)]
        assert depths_of(up_to(names[depth], stage)) == alike
    for end in range(len(names[depth])):  # wherever it ends
        found = depths_of(names[depth][:end])
        last = re.match(r"layer(\d)\.(\d+)", names[depth][end - 1])
        ends_like_another = last and any(int(last[2]) + 1 == blocks[int(last[1]) - 1] for blocks in BLOCKS.values())
        assert depth in found or ends_like_another


@cache
def backbone_of(depth):
    """For tests that change none of its weights."""
    return Backbone(depth)


@pytest.mark.parametrize(("depth", "other"), [(34, 18), (18, 34), (50, 34), (101, 50), (50, 101), (152, 101)])
@pytest.mark.parametrize("stage", [3, 4])
def test_weights_of_another_depth_are_refused_by_its_name(depth, other, stage):
    state = backbone_of(other).state_dict()
    part = {name: state[name] for name in up_to(state, stage)}
    backbone = backbone_of(depth)
    before = backbone.layer1[0].conv1.weight.clone()
    words = rf"file\.pth: its blocks are from a ResNet-{other}, not from a ResNet-{depth}\. Use --depth {other}, or"
    with pytest.raises(UserError, match=words):
        load_backbone(backbone, part, "file.pth")
    assert torch.equal(backbone.layer1[0].conv1.weight, before)


def test_blocks_of_no_known_depth_are_refused():
    state = {**Backbone(18).state_dict(), "layer2.2.conv1.weight": torch.zeros(128, 128, 3, 3)}
    with pytest.raises(UserError, match="its blocks are from an unknown ResNet, not from a ResNet-18"):
        load_backbone(Backbone(18), state, "file.pth")


def test_single_tensors_are_reported_by_name(resnet18):
    state = resnet18.state_dict()
    del state["layer4.1.bn2.bias"]
    assert load_backbone(Backbone(18), state, "part.pth").missing == ["layer4.1.bn2.bias"]


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ({"weight": torch.zeros(3)}, "looks like another network's weights, and none of its 1 names"),
        ({}, "holds nothing, and none of its 0 names"),
        ({"conv1.weight": torch.zeros(64, 3, 3, 3)}, r"conv1.weight has shape \[64, 3, 3, 3\]"),
        ({"bn1.bias": torch.full((64,), float("inf"))}, "bn1.bias holds values that are not finite"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_nothing_loaded(state, words):
    backbone = Backbone(18)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    with pytest.raises(UserError, match=f"file.pth: {words}"):
        load_backbone(backbone, state, "file.pth")
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())


@pytest.mark.parametrize("learn", [False, True])
def test_statistics_move_only_if_they_are_learned(learn):
    backbone = Backbone(18, learn_statistics=learn).train()
    backbone(torch.randn(2, 3, 64, 64) + 3)
    moved = not torch.equal(backbone.bn1.running_mean, torch.zeros(64))
    assert moved is learn
    assert backbone.bn1.weight.requires_grad


@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("num_stages", range(6))
def test_frozen_stages_stay_and_cost_no_backward_pass(num_stages, learn):
    backbone = Backbone(18, learn_statistics=learn)
    backbone.freeze(num_stages)
    optimizer = torch.optim.SGD([one for one in backbone.parameters() if one.requires_grad] or [torch.zeros(1)], 1.0)
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    levels = backbone.train()(torch.randn(2, 3, 64, 64) + 3)
    assert [level.requires_grad for level in levels] == [num_stages < 3, num_stages < 4, num_stages < 5]
    if num_stages < 5:
        levels[2].square().mean().backward()
    optimizer.step()
    frozen = modules_of(num_stages)
    moves = backbone.state_dict().keys() if learn else dict(backbone.named_parameters()).keys()
    moved = {name for name, value in backbone.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {name for name in moves if name.split(".")[0] not in frozen}


def test_imagenet_weights_are_taken_from_the_cache(resnet18, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    torch.save(resnet18.state_dict(), tmp_path / "checkpoints" / "resnet18-f37072fd.pth")
    state = imagenet_state(18)
    assert torch.equal(state["fc.weight"], resnet18.state_dict()["fc.weight"])
    torch.save({"newer": torch.ones(1)}, tmp_path / "checkpoints" / "resnet50-11ad3fa6.pth")
    assert list(imagenet_state(50, "V2")) == ["newer"]


def test_a_failed_download_says_where_to_put_the_file(unreachable_hub):
    with pytest.raises(UserError) as refused:
        imagenet_state(50)
    for words in ("resnet50-0676ba61.pth", str(unreachable_hub / "checkpoints"), "--weights none", "--weights FILE"):
        assert words in str(refused.value)


def test_what_is_no_state_dict_is_refused(tmp_path):
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match=r"list\.pth: not a state dict"):
        read_state_file(tmp_path / "list.pth")


@pytest.mark.skipif("R18" not in os.environ, reason="needs $R18, a file of ImageNet weights up to layer3")
def test_real_partial_weights():
    state = read_state_file(Path(os.environ["R18"]))
    assert load_backbone(Backbone(18), state, "R18").missing == ["layer4"]


@pytest.mark.parametrize("channels", [64, 256])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 2), (2, 1), (5, 1), (3, 2), (5, 2), (10, 2), (40, 2)])
def test_a_column_of_bfloat16_is_convolved_as_float32_is(channels, height, width):
    torch.manual_seed(0)
    features = torch.randn(2, channels, height, width).bfloat16()
    weight, bias = torch.randn(channels, channels, 3, 3) / channels**0.5 / 3, torch.randn(channels)
    results = []
    for convolve, dtype in ((conv2d, torch.bfloat16), (F.conv2d, torch.float32)):
        inputs = [features.to(dtype, copy=True), weight.clone(), bias.clone()]
        for value in inputs:
            value.requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            out = convolve(*inputs, (2, 2), (1, 1))
        assert out.dtype == dtype
        (out.float() ** 2).sum().backward()
        results.append([out.float(), *(value.grad.float() for value in inputs)])
    for found, wanted in zip(*results, strict=True):
        assert (found - wanted).norm() < 0.01 * wanted.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("height", "width"), [(1, 3), (2, 4), (8, 3), (40, 5)])
def test_other_convolutions_are_pytorchs_to_the_last_bit(dtype, height, width):
    features = torch.randn(2, 64, height, width)
    arguments = torch.randn(64, 64, 3, 3), torch.randn(64), (2, 2), (1, 1)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        assert torch.equal(conv2d(features.to(dtype), *arguments), F.conv2d(features.to(dtype), *arguments))
    assert torch.equal(conv2d(features[..., :2], *arguments), F.conv2d(features[..., :2], *arguments))


@pytest.mark.parametrize("learn_statistics", [False, True])
def test_the_resnets_own_convolutions_are_exact_in_a_column(learn_statistics, monkeypatch):
    """oneDNN's fault depends on the processor, so the formats are looked at."""
    seen = []

    def noted(features, weight, *others):
        if weight.shape[2] == 3 and others[1] == (2, 2):
            seen.append((features.shape[3], features.dtype))
        return convolve(features, weight, *others)

    convolve = F.conv2d
    monkeypatch.setattr(F, "conv2d", noted)
    backbone = Backbone(18, learn_statistics)
    with torch.autocast("cpu", torch.bfloat16):
        levels = backbone(torch.randn(2, 3, 96, 32))
    assert seen == [(8, torch.bfloat16), (4, torch.bfloat16), (2, torch.float32)]
    assert {level.dtype for level in levels} == {torch.bfloat16}
