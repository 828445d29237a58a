"""Question 3 (d): the recipe with each tweak taken out in turn, on held-out images, three seeds.

    python experiments/ablation_q3_bn.py --data-dir DIR

All rows train for 8 epochs instead of the recipe's own number. Writes ablation_q3_bn.json beside
this file; about 20 minutes on two cores.
"""

import runs

from q3_cnn import HYPERPARAMETERS

RECIPE = HYPERPARAMETERS["bn"] | {"epochs": 8}
CHANGES = [
    {},
    {"affine": 0.0},
    {"label_smoothing": 0.0},
    {"dropout": 0.0},
    {"weight_decay": 0.0},
]

if __name__ == "__main__":
    rows = [RECIPE | change for change in CHANGES]
    runs.main("q3_cnn", [(row, seed) for row in rows for seed in (0, 1, 2)], __file__)
