"""Question 3 (d): the learning rates up to which (b), (b) with batch norm, and (d) train.

    python experiments/learning_rates_q3.py --data-dir DIR

For two epochs; everything but the rate and, for the second, batch norm is as in the script. Writes
learning_rates_q3.json beside this file; about 7 minutes on two cores.
"""

import runs

from q3_cnn import HYPERPARAMETERS

RATES = [0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0, 30.0]

if __name__ == "__main__":
    base, bn = HYPERPARAMETERS["base"], HYPERPARAMETERS["bn"]
    starts = [base | {"batch_norm": False}, base | {"batch_norm": True}, bn]
    jobs = [start | {"epochs": 2, "lr": lr} for start in starts for lr in RATES]
    runs.main("q3_cnn", [(job, 0) for job in jobs], __file__)
