"""Question 3 (c): weight decay x dropout x where it sits, all else as (b), on held-out images.

    python experiments/search_q3_reg.py --data-dir DIR

(b) itself is in search_q3_base.json. Writes search_q3_reg.json beside this file; about 10 minutes
on two cores.
"""

import runs

from q3_cnn import HYPERPARAMETERS

# (weight decay, dropout before both linear layers)
GRID = [(0, 0.5), (5e-4, 0.5), (5e-4, 0), (0, 0.25), (5e-5, 0.25), (1e-5, 0.25)]
# 0.1 of the channels before the second convolution besides
PLACES = {"weight_decay": 5e-5, "tweak": ["place_dropout", 0.1, 0.25, 0.25]}

if __name__ == "__main__":
    jobs = [{"weight_decay": decay, "dropout": dropout} for decay, dropout in GRID]
    rows = [HYPERPARAMETERS["base"] | job for job in [*jobs, PLACES]]
    runs.main("q3_cnn", [(row, 0) for row in rows], __file__)
