import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.logs import TABLES, older, todays, written

from retinanet.evaluation.coco_table import table_text
from retinanet.reports.curves import curves_of, draw_curves
from retinanet.reports.figures import save_figure
from retinanet.reports.log_reader import Point, RunLog


def made(name="run.log", epochs=3, steps=4, running=lambda x: 2 / (1 + x), tables=True, drops=(2,), model=None):
    places = [(epoch, step) for epoch in range(epochs) for step in range(1, steps + 1)]
    points = [Point(epoch, step, 0.1, 0.1, running(epoch + step / steps), None) for epoch, step in places]
    of_epochs = {epoch: [0.1 * epoch, 0.15 * epoch, *[0.0] * 10] for epoch in range(1, epochs + 1)} if tables else {}
    return RunLog(Path(name), points, {}, of_epochs, {"output_path": model} if model else {}, list(drops))


def drawn(*logs, log_scale=True):
    return draw_curves(curves_of(logs), log_scale)


def texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_losses_drops_and_ap_share_an_axis_of_epochs():
    figure = drawn(made())
    losses, ap = figure.axes
    curve, drops = losses.lines
    assert curve.get_xdata().tolist() == [(step + 1) / 4 for step in range(12)]
    assert curve.get_ydata().tolist() == pytest.approx([2 / (1 + (step + 1) / 4) for step in range(12)])
    assert drops.get_xydata().tolist() == [[2.25, pytest.approx(2 / 3.25)]]  # the first of epoch 2
    assert [line.get_xdata().tolist() for line in ap.lines] == [[1, 2, 3]] * 2
    assert [line.get_ydata().tolist() for line in ap.lines] == [
        pytest.approx([0.1, 0.2, 0.3]),
        pytest.approx([0.15, 0.3, 0.45]),
    ]
    assert losses.get_shared_x_axes().joined(losses, ap)
    assert texts(figure) == ["run", "learning rate drops"]


def test_without_tables_there_is_no_lower_half():
    figure = drawn(made(tables=False), made("b.log", tables=False, drops=()))
    assert len(figure.axes) == 1
    assert len(drawn(made()._replace(tables={3: [-1.0] * 12})).axes) == 1
    assert "learning rate drops" not in texts(drawn(made(drops=())))


@pytest.mark.parametrize("scale", ["log", "linear"])
def test_scales(scale):
    assert drawn(made(), log_scale=scale == "log").axes[0].get_yscale() == scale


def test_a_list_of_epoch_losses_is_enough_for_a_curve():
    log = made(epochs=0)._replace(epoch_losses={0: 2.0, 1: 1.5, 2: 1.0}, drops=[2])
    line, drops = drawn(log).axes[0].lines
    assert line.get_xydata().tolist() == [[1, 2], [2, 1.5], [3, 1]]
    assert drops.get_xydata().tolist() == [[3, 1]]


def test_runs_differ_without_colour_too_and_fifty_fit():
    figure = drawn(*(made(f"{number}.log") for number in range(50)))
    lines = figure.axes[0].lines[::2]
    assert len({(line.get_marker(), str(line._unscaled_dash_pattern)) for line in lines}) == 50
    assert len({line.get_color() for line in lines}) == 10
    assert len(figure.axes[1].lines) == 50  # no AP50


@pytest.mark.parametrize(
    ("names", "models", "shown"),
    [
        (["a", "b"], ["m1", "m2"], ["m1", "m2"]),
        (["a", "b"], ["m", "m"], ["a", "b"]),
        (["x/a", "y/a"], ["m", "m"], ["x/a", "y/a"]),
        (["_a$\\x$", "a\nb"], [None, None], ["_a$\\x$", "a\\nb"]),
        (["x" * 200 + "1", "b"], [None, None], ["x" * 29 + "…" + "x" * 29 + "1", "b"]),
    ],
    ids=str,
)
def test_names_in_the_legend(tmp_path, names, models, shown):
    figure = drawn(*(made(f"{name}.log", model=model) for name, model in zip(names, models, strict=True)))
    assert texts(figure)[:-1] == shown
    save_figure(figure, tmp_path / "curves.png")  # a $ is no formula


def test_names_are_the_shortest_ends_that_differ():
    models = ["runs/a/seed0", "runs/b/seed0", "runs/b/seed1", "/c/b/seed0", "seed0", "model"]
    figure = drawn(*(made(f"{number}.log", model=model, drops=()) for number, model in enumerate(models)))
    assert texts(figure) == ["a/seed0", "runs/b/seed0", "runs/b/seed1", "c/b/seed0", "seed0", "model"]


@pytest.mark.parametrize("log_scale", [True, False])
@pytest.mark.parametrize(
    "losses",
    [
        *([math.nan], [math.inf, math.nan], [0.0, -1.0], [1.0, math.nan] * 20, [1e38, 1e-30], [1.0]),
        *([1e308, -1e308], [1.0, 1e308, math.inf], [5e-324, 1e300], [5e-324], [1e308]),
    ],
)
def test_odd_losses_are_drawn(tmp_path, recwarn, losses, log_scale):
    points = [Point(0, step, 0.1, 0.1, loss, None) for step, loss in enumerate(losses)]
    figure = drawn(made(epochs=0)._replace(points=points), log_scale=log_scale)
    save_figure(figure, tmp_path / "curves.png")
    assert [str(one.message) for one in recwarn] == []
    finite = [loss for loss in losses if math.isfinite(loss) and (loss > 0 or not log_scale)]
    line = figure.axes[0].lines[0]
    assert line.get_ydata()[np.isfinite(line.get_ydata())].tolist() == np.clip(finite, -1e200, 1e200).tolist()
    if len(losses) == 40:  # nothing but a marker shows a loss between gaps
        assert set(range(0, 40, 2)) <= set(line.get_markevery())
    assert ("(no finite loss)" in texts(figure)[0]) == (not any(map(math.isfinite, losses)))


def test_the_legend_lies_below_the_curves(tmp_path):
    for count, name in ((1, "long_" * 8), (2, "long_" * 8), (12, "long_" * 8), (8, "s"), (9, "s"), (25, "m")):
        figure = drawn(*(made(f"{name}{number}.log") for number in range(count)))
        save_figure(figure, tmp_path / "curves.png")
        legend = figure.legends[0].get_window_extent()
        assert all(legend.y1 < axis.get_window_extent().y0 for axis in figure.axes)
        assert legend.x0 >= 0
        assert legend.y0 >= 0
        assert legend.x1 <= figure.bbox.x1
        assert figure.axes[0].get_window_extent().height > 300


def test_vis_compares_logs_without_any_data(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    paths = [
        written(tmp_path, todays(), "new.log"),
        written(tmp_path, older(), "train_depth50_no2.log"),
        written(tmp_path, table_text(TABLES[3]), "valid_depth18_no3.log"),
    ]
    run = script("vis", "--logs", *paths)
    assert (run.code, run.err) == (0, "")
    rows = [line.split() for line in run.out.splitlines() if line.startswith("| ")]
    assert [row[1] for row in rows[2:]] == ["model6", "train_depth50_no2", "valid_depth18_no3"]
    assert [row[-8::2] for row in rows[2:]] == [
        ["0.030", "0.060", "0.030", "3"],
        ["-", "-", "-", "-"],
        ["0.030", "0.060", "-", "-"],
    ]
    assert run.out.endswith("\n\nPicture of 2 of 3 logs: curves.png\n")
    with Image.open("curves.png") as picture:
        assert picture.size[0] == 960
    run = script("vis", "--logs", paths[0], "--picture_path", "a.pdf", "--loss_scale", "linear")
    assert (run.code, Path("a.pdf").read_bytes()[:4]) == (0, b"%PDF")
    Path("curves.png").unlink()
    run = script("vis", "--logs", paths[2])
    assert (run.code, "there is no picture" in run.out, Path("curves.png").exists()) == (0, True, False)


def test_vis_takes_folders_and_globs(script, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("log", "log/a", "log/b", "elsewhere"):
        written(tmp_path / folder, todays(), "x.log")
    written(tmp_path / "log" / "b", "no run\n", "debug.log")
    written(tmp_path / "log", "no log\n", "README.md")

    def models(*places):
        run = script("vis", "--logs", *places)
        assert (run.code, run.err) == (0, "")
        return [line.split()[1] for line in run.out.splitlines() if line.startswith("| ")][2:], run.out

    names, out = models("log")
    assert names == ["a/x", "b/x", "log/x"]
    left_out = "Left out, as they contain neither losses nor a table: log/b/debug.log"
    assert left_out in out.splitlines()
    assert models("log/*/x.log", "elsewhere/x.log")[0] == ["a/x", "b/x", "elsewhere/x"]
    assert models("l*g/", "log/a/x.log")[0] == names  # a log that is named twice counts once
    (tmp_path / "log[1]").mkdir()
    written(tmp_path / "log[1]", todays(), "y.log")
    assert models("log[1]/y.log", "log[1]")[0] == ["model6"]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--logs", "{log}", "nothing/*.log"), "nothing/*.log: matches no file. Check the path"),
        (("--logs", "{log}", "*.lo"), "*.lo: matches no file"),
        (("--logs", "{folder}"), "folder: contains no log of train.py or test.py (*.log). Check the path"),
        (("--logs", "*.log"), "empty.log: contains neither losses nor a table"),
        (("--logs", "{log}", "--vis_pred"), "--vis_pred is for pictures of images. Remove it, or --logs"),
        (("--logs", "{log}", "--image_id", 1), "--image_id is for pictures"),
        (("--logs", "{log}", "--coco_path", "elsewhere"), "--coco_path is for pictures"),
        (("--logs", "{log}", "--loss_scale", "square"), "invalid choice"),
        (("--loss_scale", "linear"), "--loss_scale only applies to the curves of --logs"),
        (("--logs",), "expected at least one argument"),
        (("--logs", "none.log"), "none.log: no such file"),
        (("--logs", "{log}", "{empty}"), "empty.log: contains neither losses nor a table"),
        (("--logs", "{log}", "--picture_path", "curves"), "is not the name of a picture"),
        (("--logs", "{log}", "--picture_path", "x.docx"), "x.docx: is not the name of a picture"),
        (("--logs", "{log}", "--picture_path", "x.pgf"), "x.pgf: is not the name of a picture"),
    ],
)
def test_contradictions_and_bad_logs(script, tmp_path, monkeypatch, flags, words):
    monkeypatch.chdir(tmp_path)
    paths = {"log": written(tmp_path, todays(), "a.log"), "empty": written(tmp_path, "", "empty.log")}
    paths["folder"] = tmp_path / "folder"
    paths["folder"].mkdir()
    run = script("vis", *(str(flag).format(**paths) for flag in flags))
    assert run.code == 2
    assert words in run.err
    assert not list(tmp_path.glob("*.png"))


def test_a_table_without_an_epoch_is_at_the_end():
    figure = drawn(made()._replace(tables={None: [0.25, 0.5, *[0.0] * 10]}))
    assert [line.get_xydata().tolist() for line in figure.axes[1].lines] == [[[3, 0.25]], [[3, 0.5]]]


@pytest.mark.parametrize("log_scale", [True, False])
def test_the_ends_of_every_run_that_did_not_diverge_are_on_the_axis(log_scale):
    short = made("short.log", epochs=1, steps=2, running=lambda x: 20 - x)  # far above what fine-tuning starts at
    single = made("single.log", epochs=1, steps=1, running=lambda x: 7)
    tuned = [made(f"{name}.log", running=lambda x: 0.5 / (1 + x)) for name in "abc"]
    diverged = made("d.log", running=lambda x: 2 * 10 ** (3 * x))
    for logs in ([*tuned, short, single], [*tuned, short, single, diverged]):
        axis = drawn(*logs, log_scale=log_scale).axes[0]
        low, high = axis.get_ylim()
        ends = [loss for curve in curves_of(logs[:5]) for loss in (curve.losses[0], curve.losses[-1])]
        assert low < min(ends) < max(ends) < high < 100
        assert low > -1  # by margins of what is cut off
        assert [text.get_text().split()[0] for text in axis.texts] == ["d"] * (len(logs) == 6)


def test_a_first_batch_without_objects_hides_no_run():
    """Its loss is near 0, and so is the mean of a run's first iterations."""
    short = [made(f"{name}.log", epochs=1, steps=2, running=lambda x: 0.003 if x < 1 else 0.5) for name in "ab"]
    axis = drawn(*short).axes[0]
    assert not axis.texts
    assert axis.get_ylim()[1] > 0.5


def test_a_run_that_diverged_does_not_flatten_the_others():
    healthy = [made(f"{name}.log") for name in "ab"]
    diverged = made("c.log", running=lambda x: 2 * 10 ** (3 * x))
    losses = drawn(*healthy, diverged).axes[0]
    assert losses.get_ylim()[1] < 100
    (note,) = losses.texts
    assert note.get_text() == "c goes above this axis, up to 2e+09"
    assert not drawn(*healthy).axes[0].texts
    more = drawn(*healthy, diverged, made("d.log", running=lambda x: 1e5 * (x + 1))).axes[0]
    assert [text.get_text() for text in more.texts] == ["2 runs go above this axis, up to 2e+09"]
    alone = drawn(diverged).axes[0]  # against its own first loss
    assert [text.get_text() for text in alone.texts] == ["c goes above this axis, up to 2e+09"]
    larger = made("d.log", running=lambda x: 5 / (1 + x))  # another loss function
    assert not drawn(*healthy, larger).axes[0].texts
