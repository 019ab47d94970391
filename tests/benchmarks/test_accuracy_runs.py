import time

import pytest

from benchmarks.accuracy import peer
from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.rows import BASELINE, PEER, Row, Run, Setting, filled, milestones_of, rows_of, runs_of
from benchmarks.accuracy.runs import execute, last_line
from retinanet.settings.evaluate import evaluate_settings
from retinanet.settings.train import train_settings

GPU = Setting("cuda", 18, 608, 1024, 2, 24, (16, 21), "abc")
CPU = Setting("cpu", 18, 224, 384, 4, 6, (5,), "abc")
READERS = {
    "train.py": train_settings,
    "test.py": evaluate_settings,
    "benchmarks.accuracy.peer": lambda flags: peer.build_parser().parse_args(flags),
}


def rows_by_name(setting: Setting = GPU) -> dict[str, Row]:
    return {row.name: row for row in rows_of(setting)}


def test_rows_with_seeds_come_first_and_seed_by_seed():
    runs = runs_of(GPU, rows_of(GPU), [1, 2, 3])
    firsts = [(run.row.name, run.seed) for run in runs[:12]]
    assert firsts == [(name, seed) for seed in (1, 2, 3) for name in (BASELINE, "strong", PEER, "bfloat16")]
    assert [run.seed for run in runs[12:]] == [1] * (len(rows_of(GPU)) - 4)
    assert len({run.results_path for run in runs}) == len(runs)
    assert milestones_of(72) == (48, 64)


def test_milestones_and_sides_are_the_settings():
    words = {run.row.name: " ".join(run.commands[0]) for run in runs_of(GPU, rows_of(GPU), [1])}
    assert "--epochs 24 --milestones 16 21 --eval_every 24 --seed 1" in words[BASELINE]
    assert "--milestones" not in words["cosine"]
    assert "--milestones 16 21" in words[PEER]
    assert "--train_sides 480 544 608 672" in words["train_sides"]
    words = {run.row.name: " ".join(run.commands[0]) for run in runs_of(CPU, rows_of(CPU), [1])}
    assert "--train_sides 176 200 224 248" in words["train_sides"]


def test_test_time_rows_borrow_the_baselines_training():
    baseline, flip = runs_of(GPU, [rows_by_name()[name] for name in (BASELINE, "flip_test")], [1])
    assert flip.commands[0] == baseline.commands[0]
    assert flip.commands[1][:-3] == [word.replace("val.json", "flip_test.json") for word in baseline.commands[1][:-2]]
    assert flip.commands[1][-1] == "--flip_test"


def test_other_flags_and_settings_have_folders_of_their_own():
    longer = GPU._replace(epochs=36)
    runs = [runs_of(setting, [Row("a", flags)], [1])[0] for setting in (GPU, longer) for flags in ((), ("--resume",))]
    assert len({run.folder for run in runs}) == 4


@pytest.mark.parametrize("setting", [GPU, CPU], ids=["gpu", "cpu"])
@pytest.mark.parametrize("name", list(rows_by_name()))
def test_scripts_take_the_commands(setting, name):
    (run,) = runs_of(setting._replace(device="cpu"), [rows_by_name(setting)[name]], [1])
    for _, *words in run.commands:
        program, *flags = words[1:] if words[0] == "-m" else words
        READERS[program](flags)


def test_places_are_put_in_for_whole_words_and_folders():
    words = ["python", "$VOC5", "FOLDER/a/FOLDER", "FOLDERS", "$R18"]
    filled_words = filled(words, {"$VOC5": "d v", "$R18": "r", "FOLDER": "/f"})
    assert filled_words == ["python", "d v", "/f/a/FOLDER", "FOLDERS", "r"]


# Runs of small commands instead of trainings.


def small_run(name: str, *scripts: str) -> Run:
    return Run(Row(name), 1, f"FOLDER/{name}", [["python", "-c", script] for script in scripts], "")


def executed(tmp_path, *runs: Run, **how) -> dict[str, int]:
    ended = {}
    execute(runs, {"FOLDER": str(tmp_path)}, lambda run, code: ended.update({run.row.name: code}), **how)
    return ended


def test_commands_follow_each_other_until_one_fails(tmp_path):
    runs = [
        small_run("good", "print(1)", "import sys; print(2, sys.argv[1])"),
        small_run("bad", "print('no'); raise SystemExit(3)", "print('never')"),
    ]
    assert executed(tmp_path, *runs, more=["--x"]) == {"good": 0, "bad": 3}
    places = {"FOLDER": str(tmp_path)}
    assert [last_line(run, places) for run in runs] == ["2 --x", "no"]


def test_several_at_a_time(tmp_path):
    meet = (
        "import pathlib, time\n"
        "pathlib.Path('{0}/{1}').touch()\n"
        "while not pathlib.Path('{0}/{2}').exists(): time.sleep(0.01)"
    )
    runs = [small_run(one, meet.format(tmp_path, one, other)) for one, other in (("a1", "b1"), ("b1", "a1"))]
    assert executed(tmp_path, *runs, jobs=2, deadline=time.monotonic() + 30) == {"a1": 0, "b1": 0}


def test_at_the_deadline_runs_are_asked_to_stop(tmp_path):
    patient = (
        "import signal, time\n"
        "def stop(*_):\n    print('saved', flush=True)\n    raise SystemExit(143)\n"
        "signal.signal(signal.SIGTERM, stop)\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    runs = small_run("patient", patient), small_run("next", "print(1)")
    started = time.monotonic()
    assert executed(tmp_path, *runs, deadline=started + 2) == {}
    assert time.monotonic() - started < 20
    assert last_line(runs[0], {"FOLDER": str(tmp_path)}) == "saved"
    assert not (tmp_path / "next.log").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--rows", "cosine", "best"), "--rows best: choose from baseline, strong"),
        (("--weights", "none.pth"), "--weights none.pth: no such file"),
        (("--seeds", "1", "1"), "--seeds names a seed twice"),
        (("--page", "README.md"), "--page README.md: no file with the lines"),
        (("--min_side", "2000"), "--max_side 1024 is below --min_side 2000"),
    ],
)
def test_mistakes(coco_path, capsys, flags, message):
    with pytest.raises(SystemExit) as ended:
        main(["--coco_path", str(coco_path), "--weights", __file__, "--folder", "x", "--device", "cpu", *flags])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
