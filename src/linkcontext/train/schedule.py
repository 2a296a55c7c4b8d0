"""Learning-rate schedules: the share of the peak rate at each step."""

import math


def cosine(step: int, steps: int, warmup: float) -> float:
    """A linear rise over the share `warmup` of all `steps`, then a cosine that falls towards 0.

    The share of the peak rate at `step`, which counts from 0: a number from 0 to 1. (Loshchilov and Hutter, 2017.)
    """
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def warmup_stable_decay(step: int, steps: int, warmup: int = 100, decay: float = 0.4, floor: float = 0.05) -> float:
    """A linear rise over `warmup` steps, the peak, then a linear fall to `floor` in the last share `decay` of them.

    The share of the peak rate at `step`, which counts from 0: a number from 0 to 1. (Hu et al., MiniCPM, 2024.)
    """
    rise = min(1.0, (step + 1) / warmup)
    fall = min(1.0, (steps - step) / max(1.0, decay * steps))
    return rise * (floor + (1 - floor) * fall)
