"""Question 3 (d): the learning rate up to which (b) trains, without and with batch norm.

    python experiments/learning_rates_q3.py --data-dir DIR

Everything but the rate and batch norm is as in (b), for two epochs. Writes learning_rates_q3.json
beside this file; about 3 minutes on two cores.
"""

import runs

from q3_cnn import HYPERPARAMETERS

RATES = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0]

if __name__ == "__main__":
    start = HYPERPARAMETERS["base"] | {"epochs": 2}
    jobs = [start | {"batch_norm": norm, "lr": lr} for norm in (False, True) for lr in RATES]
    runs.main("q3_cnn", [(job, 0) for job in jobs], __file__)
