from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from retinanet.checkpoints.checkpoint import build_model, load_checkpoint, save_checkpoint
from retinanet.checkpoints.level_code import LevelCodedRetinaNet
from retinanet.detector.model import RetinaNet
from retinanet.settings.options import with_values
from retinanet.settings.train import TrainSettings
from retinanet.training.optimizer import build_optimizer
from retinanet.training.saves import snapshot
from retinanet.training.state import TrainingState


@pytest.mark.parametrize("kind", [RetinaNet, LevelCodedRetinaNet])
def test_a_checkpoint_rebuilds_the_kind_of_network(kind, tmp_path, narrow_network):
    settings = with_values(TrainSettings(), {"coco_path": Path("coco"), "depth": 18, "channels": 8})
    network = kind(2, 18, channels=8)
    if kind is LevelCodedRetinaNet:
        network.level_scale.normal_()
    state = TrainingState(network, build_optimizer(network, "adam", 1e-3, 0.0), torch.device("cpu"))
    state.epoch, state.score_threshold = 3, 0.25
    sets = SimpleNamespace(val=SimpleNamespace(class_names=["red", "green"], category_ids=[1, 2]))
    save_checkpoint(snapshot(SimpleNamespace(settings=settings, state=state, sets=sets)), tmp_path / "x.pt")
    again = build_model(load_checkpoint(tmp_path / "x.pt"), tmp_path / "x.pt")
    assert type(again) is kind
    assert all(map(torch.equal, again.state_dict().values(), network.state_dict().values()))
