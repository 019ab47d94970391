import pytest

from retinanet.runtime.errors import UserError
from retinanet.settings.options import flat
from retinanet.settings.train import RECIPES, TrainSettings, settings_line, train_settings


def values(*flags):
    """The settings of train.py's command line, by the names of the flags."""
    return flat(train_settings(list(map(str, flags))))


def test_published_is_the_default_and_changes_nothing():
    defaults = flat(TrainSettings()) | {"eval_backend": values()["eval_backend"]}
    assert values() == values("--recipe", "published") == defaults


def test_strong_sets_what_it_names_and_nothing_else():
    strong, published = values("--recipe", "strong"), values()
    changed = {name for name in strong if strong[name] != published[name]}
    assert changed == {"recipe", "backbone_rate", "train_sides", *RECIPES["strong"]}
    assert all(strong[name] == value for name, value in RECIPES["strong"].items() if name != "augment")
    assert strong["augment"] == ["photometric"]
    assert strong["backbone_rate"] == [0.15]
    assert strong["train_sides"] == [486, 547, 608, 669, 730]


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (("--learning_rate", 0.001), "learning_rate", 0.001),
        (("--learning_rate", 0.001), "backbone_rate", [0.03]),  # 3e-5 for what the ResNet knows
        (("--learning_rate", 0.0001), "backbone_rate", [0.15]),
        (("--learning_rate", 0.01, "--optimizer", "sgd"), "backbone_rate", [0.15]),
        (("--learning_rate", 0.001, "--backbone_rate", 0.15), "backbone_rate", [0.15]),
        (("--schedule", "step", "--milestones", 3), "milestones", [3]),
        (("--matcher", "iou"), "matcher", "iou"),  # the published value
        (("--warmup_steps", 30), "warmup_share", 0.0),
        (("--ema_decay", 0.99), "ema_share", 0.0),
        (("--ema_decay", 0), "ema_share", 0.0),  # no average at all
        (("--ema_share", 0), "ema_share", 0.0),
        (("--train_sides", 320), "train_sides", [320]),
        (("--min_side", 160), "train_sides", [128, 144, 160, 176, 192]),
        (("--min_side", 64), "train_sides", [64, 70, 77]),
        (("--epochs", 12), "train_sides", [486, 547, 608, 669, 730]),
        (("--epochs", 11), "train_sides", None),
        (("--cache", "ram"), "train_sides", None),
        (("--weights", "none"), "norm_statistics", "learned"),
        (("--norm_statistics", "frozen"), "norm_statistics", "frozen"),
        (("--freeze_stages", 5, "--learning_rate", 0.001), "freeze_stages", 5),
        (("--no_iou_branch",), "iou_branch", False),
        (("--no_ignore_crowds",), "ignore_crowds", False),
        (("--weights", "coco", "--head_norm", "group"), "iou_branch", False),
    ],
)
def test_what_is_given_counts(flags, name, value):
    assert values("--recipe", "strong", *flags)[name] == value


def test_contradictions_with_what_is_given_are_refused():
    with pytest.raises(UserError, match="--milestones only apply to --schedule step"):
        values("--recipe", "strong", "--milestones", 3)
    with pytest.raises(
        UserError, match=r"--warmup_share and --warmup_steps both set the same thing\. Remove one of the two"
    ):
        values("--recipe", "strong", "--warmup_share", 0.1, "--warmup_steps", 3)


def test_the_log_names_the_recipe_and_what_it_sets():
    line = settings_line(values("--recipe", "strong"))
    assert line.startswith('Settings: {"recipe": "strong", ')
    assert '"box_loss": "giou"' in line
