from pathlib import Path

import pytest
import torch
from support.built import small_network
from support.scripts import TINY
from torchvision.models import get_model
from torchvision.models.detection import retinanet_resnet50_fpn_v2

from retinanet.checkpoints import start
from retinanet.checkpoints.checkpoint import Checkpoint
from retinanet.checkpoints.resume import Facts, SavedRun
from retinanet.checkpoints.start import build_network
from retinanet.detector.settings import STAGES
from retinanet.runtime.errors import UserError
from retinanet.settings.train import train_settings

NAMES = ["cat", "red"]
DETECTOR = ("--depth", 50, "--channels", 256, "--head_norm", "group")


def start_of(*flags):
    return train_settings(list(map(str, flags))).network


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    path = tmp_path_factory.mktemp("detector") / "detector.pth"
    torch.save(retinanet_resnet50_fpn_v2(weights=None, weights_backbone=None).state_dict(), path)
    return path


@pytest.fixture
def resnet18(tmp_path):
    torch.save(get_model("resnet18", weights=None).state_dict(), tmp_path / "resnet18.pth")
    return tmp_path / "resnet18.pth"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--weights", "coco", "--depth", 18), "--weights coco is a detector with --depth 50"),
        (("--weights", "coco", "--channels", 64), "--weights coco is a detector with --channels 256"),
        (("--weights", "coco", "--head_norm", "none"), "--weights coco is a detector with --head_norm group"),
        (
            ("--head_norm", "group", "--channels", 48),
            "--channels 48 is not a multiple of 32, which --head_norm group needs",
        ),
        (("--weights", "imagenet_v2", "--depth", 34), "--weights imagenet_v2 only exists for --depth 50, 101, 152"),
        (("--weights", "none", "--freeze_stages", 1), "--freeze_stages would freeze the random weights"),
        (("--weights", "none", "--norm_statistics", "auto"), "--norm_statistics auto needs pretrained weights"),
        (("--freeze_stages", 6), "from 0 to 5"),
        (("--head_norm", "batch"), "invalid choice"),
    ],
)
def test_contradictions(flags, words, capsys):
    with pytest.raises((SystemExit, UserError)) as ended:
        start_of(*flags)
    assert words in capsys.readouterr().err + str(ended.value)


def test_head_norms_default_is_settled():
    assert start_of().head_norm == "none"
    assert start_of("--weights", "coco").head_norm == "group"
    assert start_of("--weights", "imagenet_v2", "--head_norm", "group").head_norm == "group"


def test_the_statistics_default_is_settled():
    assert start_of().norm_statistics == start_of("--weights", "coco").norm_statistics == "frozen"
    assert start_of("--weights", "none").norm_statistics == "learned"


def test_the_start_is_drawn_as_ever():
    torch.manual_seed(4)
    network = build_network(start_of(*TINY), NAMES, None).network
    torch.manual_seed(4)
    wanted = small_network(channels=16, learn_statistics=True)
    assert all(map(torch.equal, network.state_dict().values(), wanted.state_dict().values()))
    assert network.backbone.learn_statistics


@pytest.mark.parametrize("weights", ["imagenet", "imagenet_v2", "coco"])
def test_which_weights_are_read(weights, monkeypatch):
    asked = []

    def state_of(*which):
        asked.append(which)
        raise UserError("enough")

    monkeypatch.setattr(start, "imagenet_state", state_of)
    monkeypatch.setattr(start.pretrained_detector, "coco_state", state_of)
    with pytest.raises(UserError, match="enough"):
        build_network(start_of("--weights", weights), NAMES, None)
    assert asked == [{"imagenet": (50,), "imagenet_v2": (50, "V2"), "coco": ()}[weights]]


def test_a_detector_is_known_by_its_names(detector, capsys):
    network = build_network(start_of("--weights", detector, *DETECTOR, "--freeze_stages", 2), NAMES, None).network
    assert network.architecture.level_code
    assert (network.architecture.head_norm, network.backbone.learn_statistics) == ("group", False)
    out = capsys.readouterr().out
    assert (
        f"Detector weights: loaded from {detector}\n"
        "Classes that keep their weights: cat\nClasses that start from scratch: red\n"
    ) in out
    assert not network.backbone.layer1[0].conv1.weight.requires_grad
    assert network.backbone.layer2[0].conv1.weight.requires_grad


@pytest.mark.parametrize("flags", [(), ("--depth", 18, "--head_norm", "group"), ("--channels", 64, *DETECTOR[4:])])
def test_a_detector_that_the_flags_do_not_fit(detector, flags):
    with pytest.raises(
        UserError, match=r"detector\.pth is a detector with --.* Use --(depth 50|channels 256|head_norm group)"
    ):
        build_network(start_of("--weights", detector, *flags), NAMES, None)


def test_frozen_stages_must_be_in_the_file(resnet18, tmp_path):
    state = torch.load(resnet18)
    del state["layer1.1.bn2.running_mean"]
    part = {name: value for name, value in state.items() if not name.startswith("layer2")}
    torch.save(part, tmp_path / "part.pth")
    flags = ("--depth", 18, "--channels", 8, "--weights", tmp_path / "part.pth", "--freeze_stages")
    network = build_network(start_of(*flags, 1), NAMES, None).network
    assert [network.backbone.bn1.weight.requires_grad, network.backbone.layer1[0].bn1.weight.requires_grad] == [0, 1]
    for num_stages, names in ((2, r"layer1\.1\.bn2\.running_mean"), (5, r"layer1\.1\.bn2\.running_mean, layer2")):
        with pytest.raises(UserError, match=rf"part\.pth: lacks {names}, which --freeze_stages {num_stages}"):
            build_network(start_of(*flags, num_stages), NAMES, None)


@pytest.mark.parametrize("weights", ["coco", "imagenet"])
def test_a_resumed_run_reads_no_weights_and_stays_frozen(weights, monkeypatch):
    monkeypatch.setattr(start, "imagenet_state", lambda *which: pytest.fail("read again"))
    monkeypatch.setattr(start.pretrained_detector, "coco_state", lambda: pytest.fail("read again"))
    settings = start_of("--weights", weights, "--freeze_stages", 3)
    is_coco = weights == "coco"
    architecture = settings.architecture._replace(level_code=is_coco)
    state = small_network(**architecture._asdict()).state_dict()
    checkpoint = Checkpoint(state, architecture, NAMES, [1, 2], 64, 96, 2, 0, {})
    facts = Facts("cpu", "float32", False, "", "", 2, 1)
    network = build_network(settings, NAMES, SavedRun(Path("last.pt"), checkpoint, {}, facts)).network
    assert all(map(torch.equal, network.state_dict().values(), state.values()))
    assert network.architecture == architecture
    trained = [name for name, value in network.backbone.named_parameters() if value.requires_grad]
    assert {name.split(".")[0] for name in trained} == {"layer3", "layer4"}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": state},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {"state_dict": {f"module.{name}": value for name, value in state.items()}},
    ],
)
def test_a_wrapped_state_dict_is_the_one_in_it(resnet18, tmp_path, wrap):
    state = torch.load(resnet18)
    torch.save(wrap(state), tmp_path / "wrapped.pth")
    flags = ("--depth", 18, "--channels", 8, "--weights")
    plain, wrapped = (
        build_network(start_of(*flags, path), NAMES, None).network for path in (resnet18, tmp_path / "wrapped.pth")
    )
    pairs = zip(plain.backbone.state_dict().values(), wrapped.backbone.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"format": "retinanet 1"}, "a checkpoint with parts missing or broken"),
        ({"pyramid.output7.weight": torch.zeros(1)}, "looks like the weights of a detector of this project"),
        (
            {"backbone.body.conv1.weight": torch.zeros(1), "roi_heads.x": torch.zeros(1)},
            "looks like a two-stage detector, such as Faster R-CNN",
        ),
        ({"features.0.weight": torch.zeros(1)}, "looks like a VGG"),
        ({"encoder.weight": torch.zeros(1)}, "looks like another network's weights"),
    ],
)
def test_a_file_that_does_not_fit_is_named_by_what_it_looks_like(tmp_path, content, words):
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(UserError, match=rf"other\.pth: {words}"):
        build_network(start_of("--depth", 18, "--weights", tmp_path / "other.pth"), NAMES, None)


@pytest.mark.parametrize(
    ("lost", "random_stages"),
    [((), []), (("layer4",), ["layer4"]), (("conv1", "layer3"), ["layer3"]), (("conv1", "bn1"), ["stem"])],
)
def test_stages_without_a_weight_are_random(resnet18, tmp_path, lost, random_stages):
    state = torch.load(resnet18)
    part = {name: value for name, value in state.items() if not name.startswith(lost)}
    torch.save(part, tmp_path / "part.pth")
    flags = ("--depth", 18, "--channels", 8, "--weights")
    assert build_network(start_of(*flags, tmp_path / "part.pth"), NAMES, None).random_stages == random_stages
    assert build_network(start_of(*flags, "none"), NAMES, None).random_stages == list(STAGES)
