"""The detector's folder, copied to another place, trains and detects by itself."""

import math
import shutil
import subprocess
import sys
from pathlib import Path

import retinanet.detector.model

TRAINING = """
import torch
from retinanet.detector.anchors import anchors_for
from retinanet.detector.detect import detect
from retinanet.detector.loss import detection_loss
from retinanet.detector.model import RetinaNet
from retinanet.detector.settings import Architecture
from retinanet.detector.structures import Targets

torch.manual_seed(0)
torch.set_num_threads(1)
model = RetinaNet(Architecture(18, 8), 2).train()
images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
targets = Targets(
    boxes=torch.tensor([[[8.0, 8.0, 40.0, 40.0]], [[20.0, 16.0, 56.0, 48.0]]]), labels=torch.tensor([[0], [1]])
)
anchors = anchors_for(64, 64, torch.device("cpu"))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
losses = []
for _ in range(6):
    loss = sum(detection_loss(model(images), anchors, targets))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
with torch.no_grad():
    found = detect(model.eval()(images), anchors, torch.tensor([[64, 64]] * 2))
print(*losses, *found.boxes.shape[::2])
"""


def test_the_folder_by_itself_trains_and_detects(tmp_path):
    folder = Path(retinanet.detector.model.__file__).parent
    shutil.copytree(folder, tmp_path / "retinanet" / "detector", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "retinanet" / "__init__.py").touch()
    # -c puts the current folder first on the path, -E keeps PYTHONPATH from naming another package.
    done = subprocess.run([sys.executable, "-E", "-c", TRAINING], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    *losses, num_images, num_coordinates = map(float, done.stdout.split())
    assert all(map(math.isfinite, losses))
    assert losses[-1] < losses[0]
    assert (num_images, num_coordinates) == (2, 4)
