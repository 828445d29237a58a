"""Question 3 (d): (b) with batch norm and nothing else changed, on held-out images, three seeds.

    python experiments/batch_norm_alone.py --data-dir DIR

Writes batch_norm_alone.json beside this file; about 15 minutes on two cores.
"""

import runs

from q3_cnn import HYPERPARAMETERS

if __name__ == "__main__":
    rows = [HYPERPARAMETERS["base"] | {"batch_norm": norm} for norm in (False, True)]
    runs.main("q3_cnn", [(row, seed) for row in rows for seed in (0, 1, 2)], __file__)
