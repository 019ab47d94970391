"""Starts from ResNets of any origin: behind prefixes, in safetensors files, and the ones that can't be loaded."""

from pathlib import Path

import pytest
import torch
from support.narrow import NarrowBackbone
from torchvision.models import get_model

from retinanet.checkpoints.checkpoint import load_checkpoint
from retinanet.checkpoints.pretrained_backbone import load_backbone
from retinanet.checkpoints.state_dicts import read_state_file
from retinanet.detector.backbone import Backbone
from retinanet.runtime.errors import UserError


def narrow_state(seed):
    torch.manual_seed(seed)
    return NarrowBackbone(18).state_dict() | {"fc.weight": torch.zeros(10, 128), "fc.bias": torch.zeros(10)}


def behind(prefix, state):
    return {f"{prefix}{name}": value for name, value in state.items()}


def loads(path: Path, state):
    """Loads the ResNet in the file, and compares it with `state`."""
    backbone = NarrowBackbone(18)
    report = load_backbone(backbone, read_state_file(path), str(path))
    assert (report.num_loaded, report.missing) == (report.num_tensors, [])
    assert all(torch.equal(value, state[name]) for name, value in backbone.state_dict().items())
    return report


@pytest.mark.parametrize("prefix", ["", "backbone.", "model.", "encoder.", "module.encoder_q.", "resnet.layer1.net."])
def test_a_resnet_is_found_behind_any_prefix(prefix, tmp_path):
    state = narrow_state(0)
    torch.save(behind(prefix, state) | {"projection.conv1.weight": torch.zeros(2)}, tmp_path / "resnet.pth")
    report = loads(tmp_path / "resnet.pth", state)
    assert report.unused == ["fc", "projection"]


def test_a_teacher_is_taken_before_its_student(tmp_path):
    student, teacher = narrow_state(1), narrow_state(2)
    for content in (
        {"student": behind("module.backbone.", student), "teacher": behind("backbone.", teacher), "epoch": 3},
        behind("student.", student) | behind("teacher.", teacher),
        {"state_dict": behind("student_backbone.", student) | behind("teacher_backbone.", teacher)},
    ):
        torch.save(content, tmp_path / "dino.pth")
        loads(tmp_path / "dino.pth", teacher)
    torch.save(behind("encoder_q.", student) | behind("encoder_k.", teacher), tmp_path / "moco.pth")
    loads(tmp_path / "moco.pth", student)  # the first


def test_what_a_training_script_saves_beside_the_weights_is_no_weight(tmp_path):
    state = narrow_state(0)
    content = {"optimizer": {"state": {0: {"step": torch.zeros(1)}}}, "model": state, "args": {"lr": 0.1}}
    torch.save(content, tmp_path / "resnet.pth")
    assert loads(tmp_path / "resnet.pth", state).unused == ["fc"]


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_a_safetensors_file_loads(metadata, prefix, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    state = narrow_state(0)
    safetensors.save_file(behind(prefix, state), tmp_path / "model.safetensors", metadata)
    loads(tmp_path / "model.safetensors", state)
    (tmp_path / "model.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes()[:5000])
    with pytest.raises(UserError, match=r"model\.safetensors: not a state dict, or damaged"):
        read_state_file(tmp_path / "model.safetensors")


def renamed(old, new):
    return lambda state: {name.replace(old, new): value for name, value in state.items()}


def resnext(_state):
    with torch.device("meta"):
        return get_model("resnext50_32x4d", weights=None).state_dict()


def wide(_state):
    with torch.device("meta"):
        return get_model("wide_resnet50_2", weights=None).state_dict()


def plus(name, *shape):
    return lambda state: state | {name: torch.zeros(shape)}


VARIANTS = {
    "deep stem": (renamed("conv1.weight", "conv1.0.weight"), r"a deep stem of several convolutions \(ResNet-C"),
    "ResNet-D": (renamed("downsample.1", "downsample.2"), r"average pooling in its shortcuts \(ResNet-D\)"),
    "SE": (plus("layer1.0.se.fc1.weight", 4, 16, 1, 1), "squeeze-and-excitation"),
    "ECA": (plus("layer1.0.eca.conv.weight", 1, 1, 3), "attention in its blocks"),
    "anti-aliased": (plus("layer2.0.conv3.0.filt", 16, 1, 3, 3), "anti-aliased downsampling"),
    "ResNeXt": (resnext, r"grouped convolutions, 32 groups in layer1\.0\.conv2\.weight \(ResNeXt\)"),
    "wide": (wide, r"blocks of twice the width \(Wide ResNet\)"),
    "other": (plus("layer1.0.gate.weight", 3), r"tensors that torchvision's lacks \(layer1\.0\.gate\.weight\)"),
}


@pytest.mark.parametrize("kind", VARIANTS)
@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_another_kind_of_resnet_is_refused_by_name(kind, prefix):
    change, words = VARIANTS[kind]
    state = behind(prefix, change(narrow_state(0)))
    depth = 50 if kind in ("ResNeXt", "wide") else 18
    backbone = Backbone(50) if depth == 50 else NarrowBackbone(18)
    with pytest.raises(UserError, match=rf"file\.pth: a ResNet with {words}.*; only torchvision's ResNets"):
        load_backbone(backbone, state, "file.pth")


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvisions_own_resnets_are_no_variants(depth):
    backbone = Backbone(depth)
    assert load_backbone(backbone, get_model(f"resnet{depth}", weights=None).state_dict(), "file.pth").missing == []


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["stages.0.blocks.0.norm1.weight", "stem.conv.weight"], "a ResNet-v2, such as BiT"),
        (["resnet.encoder.stages.0.layers.0.layer.0.convolution.weight"], "a ResNet from transformers"),
        (["blocks.0.attn.qkv.weight"], "a vision transformer"),
        (["stem.conv1.weight", "stem.bn1.weight", "body.weight"], "another network's weights"),  # no ResNet's blocks
        (["features.0.0.weight", "classifier.1.weight"], "a VGG, MobileNet"),
        (["rpn.head.conv.0.0.weight", "backbone.body.layer1.0.conv1.weight"], "a two-stage detector"),
        (["backbone.layer1.0.conv1.weight", "bbox_head.retina_cls.weight"], "a detector from mmdetection"),
        (["head.cls_score.weight", "backbone.bottom_up.stem.conv1.weight"], "a RetinaNet from detectron2"),
        (["model.0.conv.weight", "model.0.bn.weight"], "a YOLO detector"),
        (["transformer.x", "class_embed.weight"], "a detector of the DETR family"),
        (["classificationModel.conv1.weight", "layer1.0.conv1.weight"], "a detector from yhenon's pytorch-retinanet"),
    ],
)
def test_other_networks_are_refused_by_name(names, words):
    with pytest.raises(UserError, match=f"file.pth: looks like {words}"):
        load_backbone(NarrowBackbone(18), {name: torch.zeros(1) for name in names}, "file.pth")


def test_a_command_that_needs_a_checkpoint_says_what_the_file_is(tmp_path):
    torch.save({"state_dict": {"regressionModel.conv1.bias": torch.zeros(1)}}, tmp_path / "other.pt")
    words = r"other\.pt: not a checkpoint of train\.py, but a state dict that looks like a detector from yhenon's "
    with pytest.raises(UserError, match=words + r"pytorch-retinanet; train\.py --weights can load some"):
        load_checkpoint(tmp_path / "other.pt")
    torch.save([1], tmp_path / "list.pt")
    with pytest.raises(UserError, match=r"list\.pt: not a checkpoint of train\.py\. Use a file that train\.py wrote"):
        load_checkpoint(tmp_path / "list.pt")
