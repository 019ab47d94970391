"""Recipes: one flag that sets many. What they set are the defaults of those flags, so each can still be given."""

from typing import Any

PUBLISHED, STRONG = "published", "strong"
# --norm_statistics and --train_sides depend on other flags: see default_statistics and recipe_sides.
RECIPES: dict[str, dict[str, Any]] = {
    PUBLISHED: {},
    STRONG: {
        "schedule": "cosine",
        "warmup_share": 0.05,
        "ema_share": 0.05,
        "learning_rate": 2e-4,
        "backbone_rate": (0.15,),
        "augment": ("photometric",),
        "matcher": "low_quality",
        "box_loss": "giou",
        "ignore_crowds": True,
        "iou_branch": True,
    },
}
SIDE_SHARES = (0.8, 0.9, 1.0, 1.1, 1.2)  # of --min_side, for multi-scale training
# What displaces a flag of a recipe, because it says the same in another way.
INSTEAD = {"warmup_share": "warmup_steps", "ema_share": "ema_decay"}


def recipe_sides(recipe: str, min_side: int, cache: str) -> tuple[int, ...] | None:
    """The --train_sides of a recipe, where the images are not kept in one size."""
    if recipe != STRONG or cache != "none":
        return None
    return tuple(sorted({max(64, round(min_side * share)) for share in SIDE_SHARES}))
