"""The nightly job of docs/evaluation.md runs as it stands there, on a small set."""

import ast
import json
import os
import re
import subprocess
import sys
from datetime import date, timedelta

import pytest
from support.narrow import START
from support.scripts import ROOT, TINY

SMALL = (*TINY, "--channels", 8, "--epochs", 1, "--workers", 0)  # added to the command of the page, so they win


@pytest.fixture
def job(coco_path, tmp_path):
    """Runs the lines of the page in a folder with data/ and the scripts. `python` is this one, and trains small."""
    page = (ROOT / "docs" / "evaluation.md").read_text()
    lines = re.search(r"^## A nightly job$.*?^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)[1]
    for name in ("train.py", "test.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    small = " ".join(map(str, SMALL))
    python.write_text(f'#!/bin/sh\n[ "$1" = train.py ] && set -- "$@" {small}\nexec {sys.executable} "$@"\n')
    python.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{python.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(START),
        "CUDA_VISIBLE_DEVICES": "",
    }
    return lambda: subprocess.run(["bash", "-c", lines], cwd=tmp_path, env=environment, capture_output=True, text=True)


def test_the_job_fails_below_the_ap_and_compares_with_yesterday(job, coco_path, tmp_path):
    yesterday = tmp_path / "nightly" / str(date.today() - timedelta(days=1))
    yesterday.mkdir(parents=True)
    content = json.loads((coco_path / "val.json").read_text())
    objects = content["annotations"]
    objects.append({**objects[0], "id": 5, "image_id": 5})  # objects in five images are enough for an interval
    (coco_path / "val.json").write_text(json.dumps(content))
    rows = [{"score": 0.9, **{key: one[key] for key in ("image_id", "category_id", "bbox")}} for one in objects]
    (yesterday / "val.json").write_text(json.dumps(rows))

    run = job()

    assert run.returncode == 1
    assert re.fullmatch(r"test\.py: AP \S+ is below --min_ap 0\.35\n", run.stderr)
    printed = ast.literal_eval(run.stdout)
    assert (printed["name"], printed["a"]) == ("AP", pytest.approx(1))
    today = tmp_path / "nightly" / str(date.today())
    metrics, compared = (json.loads((today / f"{name}.json").read_text()) for name in ("metrics", "compare"))
    assert metrics["checkpoint"] == f"nightly/{date.today()}/best.pt"
    assert compared["differences"][0]["difference"]["high"] < 0
    assert len(list(today.glob("*.log"))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin", "data", "nightly", "test.py", "train.py"]
