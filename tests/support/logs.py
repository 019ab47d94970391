"""Provides the log of a run as different versions of train.py would write it."""

from retinanet.evaluation.coco_table import table_text
from retinanet.reports.log_reader import Point

NAME = "train_depth18_seed3407_lr1e-3_epochs3_no6.log"


SETTINGS = (
    'Settings: {"depth": 18, "seed": 3407, "learning_rate": 0.001, "epochs": 3, "batch_size": 8, "optimizer": "adam", '
    '"drop_last": false, "prior": 0.01, "alpha": 0.25, "gamma": 2.0, "milestones": [2], "output_path": "runs/model6"}'
)


POINTS = [
    Point(epoch, iteration, loss, 0.3, round(loss + 0.31, 5), 1e-3 if epoch < 2 else 1e-4)
    for epoch in range(3)
    for iteration, loss in ((1, round(0.9 - 0.2 * epoch, 5)), (4, round(0.8 - 0.2 * epoch, 5)))
]


EPOCH_LOSSES = [1.2040816326530612, 0.98, 0.5626]


TABLES = {epoch: [round(0.01 * epoch * row, 3) for row in range(1, 13)] for epoch in (1, 2, 3)}


def point_line(point, rate=True):
    line = (
        f"Epoch: {point.epoch} | Iteration: {point.iteration} | Classification loss: {point.classification:.5f} | "
        f"Regression loss: {point.regression:.5f} | Running loss: {point.running:.5f}"
    )
    return f"{line} | Learning rate: {point.learning_rate:g} | Images/s: 9.5 | Time left: 0:01:07" if rate else line


def todays():
    """Returns the log as the current train.py writes it."""
    lines = ["Log: log/x.log", SETTINGS, "Seed: 3407", "Num training images: 771"]
    for epoch, loss in enumerate(EPOCH_LOSSES):
        lines += [point_line(point) for point in POINTS if point.epoch == epoch]
        lines.append(f"Epoch {epoch} took 0:00:10, mean loss {loss:.5f}. Waited for data: 3% of the time; the loader")
        lines.append(table_text(TABLES[epoch + 1]))
    return "\n".join([*lines, "epoch_loss_list:", f"{EPOCH_LOSSES}", ""])


def older(tables=False, end="epoch_loss_list:\n[1.2040816326530612, 0.98, 0.\n5626]\n"):
    """Returns a log with only loss lines, and at its end a list that a terminal has wrapped within a number."""
    lines = ["Num training images: 771"]
    for epoch in range(3):
        lines += [point_line(point, rate=False) for point in POINTS if point.epoch == epoch]
        lines += [table_text(TABLES[epoch + 1])] if tables else []
    return "\n".join([*lines, end])


def written(folder, content, name=NAME):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name
