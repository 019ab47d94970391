"""What a training is told."""

SEED = 3407
RANDOM = "random"  # the seed that is yet to be drawn
