"""Recipes: one flag that sets many. What they set are the defaults of those flags, so each can still be given."""

from typing import Any

PUBLISHED, STRONG = "published", "strong"
# Of the learning rate, and with Adam and AdamW at most: the ResNet would forget what it knows at a higher one.
RESNET_SHARE, RESNET_RATE = 0.15, 3e-5
# --norm_statistics and --train_sides depend on other flags: see default_statistics and recipe_sides.
RECIPES: dict[str, dict[str, Any]] = {
    PUBLISHED: {},
    STRONG: {
        "schedule": "cosine",
        "warmup_share": 0.05,
        "ema_share": 0.05,
        "learning_rate": 2e-4,
        "backbone_rate": (RESNET_SHARE,),
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


def recipe_sides(recipe: str, min_side: int, epochs: int, cache: str) -> tuple[int, ...] | None:
    """The --train_sides of a recipe, in runs that are long enough and don't keep the images in one size."""
    if recipe != STRONG or epochs < SIDES_FROM_EPOCHS or cache != "none":
        return None
    return tuple(sorted({max(64, round(min_side * share)) for share in SIDE_SHARES}))


def recipe_values(recipe: str, optimizer: str, learning_rate: float) -> dict[str, Any]:
    """The values of a recipe that are known before the data, one of which depends on the optimiser and its rate."""
    values = RECIPES[recipe]
    if recipe != STRONG or optimizer == "sgd":  # whose rates are others
        return values
    return {**values, "backbone_rate": (min(RESNET_SHARE, RESNET_RATE / learning_rate),)}
