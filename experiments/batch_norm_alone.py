"""Question 3 (d): (b) with batch norm and nothing else changed, on held-out images, three seeds.

    python experiments/batch_norm_alone.py --data-dir DIR

(b) itself is in search_q3_base.json. Writes batch_norm_alone.json beside this file; about six
minutes on two cores.
"""

import runs

from q3_cnn import HYPERPARAMETERS

if __name__ == "__main__":
    row = HYPERPARAMETERS["base"] | {"batch_norm": True}
    runs.main("q3_cnn", [(row, seed) for seed in (0, 1, 2)], __file__)
