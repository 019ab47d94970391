"""With --device cuda:1 nothing happens on GPU 0. In a process of its own, which never had to do with that GPU."""

from support.data_folder import write_set
from support.scripts import TINY

from gpu.waits import forbid_waits_in_runs

FLAGS = (*TINY, "--device", "cuda:1", "--batch_size", 2, "--epochs", 1)


def test_gpu_0_stays_untouched(script, tmp_path, monkeypatch, host):
    forbid_waits_in_runs(monkeypatch)
    for name in ("train", "val"):
        write_set(tmp_path / "data", name, 3)
    paths = ("--coco_path", tmp_path / "data", "--output_path", tmp_path / "output")
    run = script("train", *paths, *FLAGS, "--workers", 1, "--ema_decay", 0.9)
    assert run.code == 0, run.err
    results = ("--results_path", tmp_path / "results.json", "--set_name", "val", "--num_draws", 0)
    checkpoint = ("--checkpoint_path", tmp_path / "output" / "model_final.pt", "--device", "cuda:1")
    run = script("test", "--coco_path", tmp_path / "data", *results, *checkpoint)
    assert run.code == 0, run.err
    assert host.runtime.is_touched(1)
    assert not host.runtime.is_touched(0)
    assert host.runtime.refused == 0
