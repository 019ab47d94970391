"""--from_run takes the settings of a run as defaults, as --recipe takes a recipe, and refuses other files."""

import json

import pytest

from retinanet.runtime.errors import UserError
from retinanet.settings.options import flat
from retinanet.settings.train import TrainSettings, train_settings

WORDS = (
    *("--recipe", "strong", "--epochs", "24", "--coco_path", "a b", "--weights", "part.pth", "--depth", "18"),
    *("--anchor_ratios", "1", "2", "--seed", "5", "--batch_size", "4", "--eval_every", "3", "--precision", "bfloat16"),
)
PLACE = ("--device", "cpu", "--workers", "3", "--output_path", "there", "--log_dir", "log", "--timeout", "5")


@pytest.fixture
def recorded(tmp_path):
    """Writes a record with the settings of some flags, or with other content, and returns its path."""

    def write(*words, **changes):
        path = tmp_path / "run.json"
        settings = flat(train_settings([str(word) for word in words])) | changes
        path.write_text(json.dumps({"settings": settings}))
        return path

    return write


def values(*words):
    return flat(train_settings([str(word) for word in words]))


@pytest.mark.parametrize(
    "words",
    [
        (),
        WORDS,
        ("--recipe", "strong", "--epochs", "3", "--backbone_rate", "0.3", "--learning_rate", "0.01"),
        ("--recipe", "strong", "--no_iou_branch", "--ema_decay", "0.9", "--warmup_steps", "3"),
        ("--weights", "none", "--recipe", "strong"),
        ("--weights", "coco"),
        ("--cache", "ram", "--recipe", "strong"),
        ("--milestones", "--train_sides", "64", "96", "--augment", "crop", "photometric"),
    ],
    ids=" ".join,
)
def test_the_settings_of_a_run_are_repeated(recorded, words):
    path = recorded(*words)
    assert values("--from_run", path) == values(*words) | {"from_run": str(path), "cache": "none"}
    assert values("--from_run", path.parent)["from_run"] == str(path.parent)


def test_the_machine_and_the_place_are_not(recorded):
    repeated = values("--from_run", recorded(*WORDS, *PLACE, "--resume", "--track", "mlflow"))
    fresh = values(*WORDS)
    assert {name for name in fresh if fresh[name] != repeated[name]} == {"from_run"}
    repeated = values("--from_run", recorded("--seeds", 1, 2))
    assert (repeated["seeds"], repeated["seed"]) == (None, 3407)


@pytest.mark.parametrize(
    ("flags", "name", "value"),
    [
        (("--coco_path", "other"), "coco_path", "other"),
        (("--iou_branch",), "iou_branch", True),
        (("--learning_rate", 0.001), "backbone_rate", [0.03]),  # as with --recipe strong
        (("--min_side", 160), "train_sides", [128, 144, 160, 176, 192]),
        (("--epochs", 11), "train_sides", None),
        (("--cache", "ram"), "train_sides", None),
        (("--warmup_steps", 30), "warmup_share", 0.0),
        (("--weights", "none"), "norm_statistics", "learned"),
        (("--weights", "coco", "--depth", 50), "head_norm", "group"),
    ],
)
def test_what_is_given_counts(recorded, flags, name, value):
    assert values("--from_run", recorded(*WORDS), *flags)[name] == value


def test_a_value_set_by_hand_stays(recorded):
    path = recorded("--recipe", "strong", "--backbone_rate", 0.1, "--warmup_steps", 3)
    assert values("--from_run", path, "--learning_rate", 0.001)["backbone_rate"] == [0.1]
    shared = values("--from_run", path, "--warmup_share", 0.1)
    assert (shared["warmup_share"], shared["warmup_steps"]) == (0.1, 0)


def test_a_flag_that_an_older_version_lacked_has_its_default(tmp_path):
    path = tmp_path / "run.json"
    path.write_text(json.dumps({"settings": {"recipe": "strong", "weights": "none", "epochs": 5}}))
    assert flat(train_settings(["--from_run", str(path)])) == flat(TrainSettings()) | {
        **{"from_run": str(path), "recipe": "strong", "weights": "none", "epochs": 5, "norm_statistics": "learned"},
        "eval_backend": values()["eval_backend"],
        "exif": "raw",  # as such a version read images
    }


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"epochs": "many"},
            "its setting 'epochs' doesn't suit --epochs: expected a whole number, 1 or more; got 'many'",
        ),
        ({"epochs": 2.0}, "--epochs: expected a whole number"),
        ({"epochs": True}, "--epochs: expected a number or a text; got True"),
        ({"epochs": None}, "--epochs: expected a number or a text; got None"),
        ({"epochs": [3]}, "--epochs: expected a single value"),
        ({"depth": 19}, "--depth: expected one of 18, 34, 50, 101, 152; got '19'"),
        ({"iou_branch": 1}, "--iou_branch: expected true or false; got 1"),
        ({"flip": float("nan")}, "--flip: expected a number from 0 to 1; got 'nan'"),
        ({"anchor_ratios": []}, "--anchor_ratios: a list of 0 values"),
        ({"augment": ["crop", {}]}, "--augment: expected a number or a text"),
        ({"weights": "a\0b"}, "--weights: expected a number or a text"),
        ({"coco_path": "\ud800"}, "--coco_path: expected a number or a text"),
        ({"from_mars": 1}, "has the setting 'from_mars', which version .* doesn't know"),
        ({"schedule": "cosine", "backbone_rate": [1, 2]}, r"--backbone_rate has 2 values.*come from .*run\.json"),
    ],
    ids=str,
)
def test_a_value_that_the_command_line_would_not_take_is_refused(recorded, changes, words):
    with pytest.raises(UserError, match=words):
        train_settings(["--from_run", str(recorded(**changes))])


@pytest.mark.parametrize("content", ["[]", "{}", '{"settings": []}', "{", "\xff", "[" * 10**5])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "run.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=r"run\.json: not (the record of a run|valid JSON)"):
        train_settings(["--from_run", str(path)])


def test_a_missing_record_and_a_recipe_are_refused(recorded, tmp_path):
    with pytest.raises(UserError, match=r"nothing\.json: no such file"):
        train_settings(["--from_run", str(tmp_path / "nothing.json")])
    with pytest.raises(UserError, match="Remove --recipe or --from_run"):
        train_settings(["--from_run", str(recorded()), "--recipe", "published"])
