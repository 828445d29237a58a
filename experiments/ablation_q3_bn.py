"""Question 3 (d): the recipe with each tweak taken out in turn, on held-out images, three seeds.

    python experiments/ablation_q3_bn.py --data-dir DIR

Every tweak at 8 epochs and at the recipe's own number, and the affine maps, which may need a longer
training to pay, at 30. Writes ablation_q3_bn.json beside this file; about 85 minutes on two cores.
"""

import runs

from q3_cnn import HYPERPARAMETERS

RECIPE = HYPERPARAMETERS["bn"]
WITHOUT = {
    "batch_norm": False,
    "one_cycle": False,
    "momentum": 0.0,
    "affine": 0.0,
    "label_smoothing": 0.0,
    "dropout": 0.0,
    "weight_decay": 0.0,
}

if __name__ == "__main__":
    rows = [
        RECIPE | {"epochs": epochs} | change
        for epochs in (8, RECIPE["epochs"])
        for change in ({}, *({key: off} for key, off in WITHOUT.items()))
    ]
    rows += [RECIPE | {"epochs": 30} | change for change in ({}, {"affine": 0.0})]
    runs.main("q3_cnn", [(row, seed) for row in rows for seed in (0, 1, 2)], __file__)
