"""Question 3 (d): one setting at a time changed from a starting recipe, on held-out images.

    python experiments/search_q3_bn.py --data-dir DIR

Writes search_q3_bn.json beside this file; about 50 minutes on two cores.
"""

from runs import main

START = {
    "batch_norm": True,
    "epochs": 20,
    "batch_size": 128,
    "lr": 0.1,
    "one_cycle": True,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "dropout": 0.1,
    "label_smoothing": 0.05,
    "affine": 1.0,
}
CHANGES = [
    {},
    {"lr": 0.3},
    {"lr": 0.03},
    {"affine": 1.5},
    {"affine": 0.5},
    {"label_smoothing": 0.1},
    {"weight_decay": 1e-3},
    {"batch_size": 64},
    {"batch_size": 256},
    {"dropout": 0.2},
    {"tweak": ["average_weights", 0.999]},
]
BENT = [
    {"tweak": ["bend", 1.0]},
    {"tweak": ["bend", 0.5]},
    {"tweak": ["bend", 1.0], "dropout": 0.0},
]

if __name__ == "__main__":
    jobs = [(START | change, 0) for change in CHANGES]
    jobs += [(START, seed) for seed in (1, 2)]  # bending needs more than one seed to compare with
    jobs += [(START | change, seed) for change in BENT for seed in (0, 1, 2)]
    main("q3_cnn", jobs, __file__)
