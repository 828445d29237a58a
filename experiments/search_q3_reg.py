"""Question 3 (c): weight decay x dropout x where it sits, all else as (b), on held-out images.

    python experiments/search_q3_reg.py --data-dir DIR

(b) itself is in search_q3_base.json. Writes search_q3_reg.json beside this file; about 25 minutes
on two cores.
"""

import runs

from q3_cnn import HYPERPARAMETERS

# (weight decay, dropout before both linear layers)
FIRST = [(0, 0.5), (5e-4, 0.5), (5e-4, 0), (0, 0.25), (5e-5, 0.25), (1e-5, 0.25)]
# weight decay, and dropout before the second convolution (whole channels), the first and the second
# linear layer
CHANNELS = (5e-5, 0.1, 0.25, 0.25)
SECOND = [
    (1e-5, 0, 0.25, 0.25),
    (1e-5, 0, 0.25, 0.5),
    (1e-5, 0, 0.5, 0.25),
    (1e-5, 0, 0.15, 0.15),
    (1e-5, 0.1, 0.25, 0.25),
    (1e-5, 0, 0.4, 0.4),
    (1e-5, 0, 0, 0.5),
    (1e-5, 0.1, 0.25, 0.5),
    (1e-4, 0, 0.25, 0.25),
]


def placed(decay, *places):
    """Return (b) with weight decay and with dropout in three places."""
    return HYPERPARAMETERS["base"] | {
        "weight_decay": decay,
        "tweak": ["place_dropout", *places],
    }


if __name__ == "__main__":
    jobs = [
        (HYPERPARAMETERS["base"] | {"weight_decay": decay, "dropout": dropout}, 0)
        for decay, dropout in FIRST
    ]
    jobs += [
        (placed(*CHANNELS), 0),
        *((placed(*row), 1) for row in SECOND),
        (placed(*SECOND[0]), 2),
    ]
    runs.main("q3_cnn", jobs, __file__)
