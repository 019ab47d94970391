"""Recipes: one flag that sets many. What they set are the defaults of those flags, so each can still be given."""

from typing import Any

from retinanet.training.settings import PUBLISHED, TrainSettings

STRONG = "strong"
# Of the learning rate, and with Adam and AdamW at most: the ResNet would forget what it knows at a higher one.
RESNET_SHARE, RESNET_RATE = 0.15, 3e-5
# --backbone_rate and --train_sides depend on other flags: see recipe_values; --norm_statistics: see default_statistics.
RECIPES: dict[str, dict[str, Any]] = {
    PUBLISHED: {},
    STRONG: {
        "schedule": "cosine",
        "warmup_share": 0.05,
        "ema_share": 0.05,
        "learning_rate": 2e-4,
        "augment": ("photometric",),
        "matcher": "low_quality",
        "box_loss": "giou",
        "ignore_crowds": True,
        "iou_branch": True,
    },
}
SIDE_SHARES = (0.8, 0.9, 1.0, 1.1, 1.2)  # of --min_side, for multi-scale training
SIDES_FROM_EPOCHS = 12  # in shorter runs an object is seen too seldom at each size
# What displaces a flag of a recipe, because it says the same in another way.
INSTEAD = {"warmup_share": "warmup_steps", "ema_share": "ema_decay"}


def recipe_values(settings: TrainSettings) -> dict[str, Any]:
    """What the recipe of these `settings` gives to flags that aren't given, those included that depend on others."""
    values = RECIPES[settings.recipe]
    if settings.recipe != STRONG:
        return values
    share, sides = RESNET_SHARE, None
    if settings.optimizer != "sgd":  # whose rates are others
        share = min(share, RESNET_RATE / settings.learning_rate)
    if settings.epochs >= SIDES_FROM_EPOCHS and settings.cache == "none":  # cached images have one size
        sides = tuple(sorted({max(64, round(settings.min_side * of_side)) for of_side in SIDE_SHARES}))
    return {**values, "backbone_rate": (share,), "train_sides": sides}
