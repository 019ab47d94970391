"""--batch_size auto finds the largest batch that fits."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.scripts import TINY

from retinanet.runtime.errors import UserError
from retinanet.runtime.ranks import Ranks
from retinanet.settings.options import with_values
from retinanet.settings.train import AUTO_BATCH, TrainSettings
from retinanet.training import batch_size
from retinanet.training.batch_size import (
    MOST,
    find_batch_size,
    largest_shape,
    largest_that_fits,
    settled_batch_size,
)


@given(fixed=st.integers(0, 50), each=st.integers(1, 50), limit=st.integers(0, 4000), memory=st.integers(0, 4000))
def test_the_largest_that_fits(fixed, each, limit, memory):
    asked = []

    def peak_of(size: int) -> int | None:
        asked.append(size)
        peak = fixed + each * size
        return peak if peak <= memory else None

    best, peak = largest_that_fits(peak_of, limit)

    wanted = min(MOST, max(0, (min(limit, memory) - fixed) // each))
    assert best == wanted
    assert peak == (fixed + each * wanted if wanted else 0)
    assert len(asked) <= 20
    assert len(asked) == len(set(asked))


def test_the_largest_shape_is_that_of_neighbours_in_aspect_ratio():
    sizes = np.array([[600, 1000], [1000, 600], [600, 600], [620, 1000]])
    sets = SimpleNamespace(training_set=SimpleNamespace(annotations=SimpleNamespace(sizes=sizes)))
    settings = with_values(TrainSettings(), {"min_side": 96, "max_side": 160})

    assert largest_shape(settings, sets, 1) in ((96, 160), (160, 96))
    assert largest_shape(settings, sets, 2) == (160, 96)
    assert largest_shape(settings, sets, 4) == (160, 160)
    assert largest_shape(settings, sets, 100) == (160, 160)


@pytest.mark.parametrize(
    ("compile_", "of_compiled", "wanted"),
    [
        ("off", None, 10),  # 100 bytes an image, of 1,000
        ("on", 90, 10),  # compiled steps need less: the size that fits without stays
        ("on", 130, 7),  # they need more: lowered until they fit too
        ("on", None, 0),  # they never fit
    ],
)
def test_the_steps_measured_are_compiled_where_the_run_is(monkeypatch, capsys, compile_, of_compiled, wanted):
    def peak_of(settings, sets, device, ranks, *, compiled=False):
        asked.append(compiled)
        each = of_compiled if compiled else 100
        return None if each is None else each * settings.data.batch_size

    asked = []
    monkeypatch.setattr(batch_size, "peak_of", peak_of)
    monkeypatch.setattr(batch_size, "why_not_compiled", lambda compile_, *_: None if compile_ == "on" else "off")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (1250, 9999))
    sizes = np.full((40, 2), 96)
    sets = SimpleNamespace(training_set=SimpleNamespace(annotations=SimpleNamespace(sizes=sizes)))
    settings = with_values(
        TrainSettings(), {"batch_size": AUTO_BATCH, "min_side": 96, "max_side": 96, "compile": compile_}
    )
    if not wanted:
        with pytest.raises(UserError, match="needs more than 80% of the free memory"):
            find_batch_size(settings, sets, torch.device("cuda"), Ranks())
        return
    assert find_batch_size(settings, sets, torch.device("cuda"), Ranks()) == wanted
    assert any(asked) == (compile_ == "on")
    peak = (of_compiled or 100) * wanted
    assert f"--batch_size auto: {wanted}, whose steps take {peak / 1e9:.2f} GB" in capsys.readouterr().out


def test_on_a_cpu_a_number_is_needed(script, coco_path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = script("train", "--coco_path", coco_path, *TINY, "--device", "cpu", "--batch_size", "auto")

    assert run.code == 2
    assert "--batch_size auto needs a GPU. Set a number" in run.err
    assert not Path("output").exists()


@pytest.mark.parametrize("text", ["0", "-1", "Auto", "2.5"])
def test_other_words(script, coco_path, text):
    assert script("train", "--coco_path", coco_path, "--batch_size", text).code == 2


def test_a_resumed_run_keeps_its_own():
    saved = SimpleNamespace(facts=SimpleNamespace(batch_size=7))

    assert settled_batch_size(with_values(TrainSettings(), {"batch_size": AUTO_BATCH}), Ranks(), None, saved) == 7
    assert settled_batch_size(with_values(TrainSettings(), {"batch_size": 3}), Ranks(), None, saved) == 3
