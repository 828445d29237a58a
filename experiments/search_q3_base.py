"""Question 3 (b): the learning rate that suits the CNN as well as question 2, on held-out images.

    python experiments/search_q3_base.py --data-dir DIR

(b) is trained as question 2, so one rate serves both. The rate chosen is trained from three seeds,
for (c) and (d) to be compared with. Writes search_q3_base.json beside this file; about 12 minutes
on two cores.
"""

import runs

ROWS = [
    ({"epochs": epochs, "batch_size": 64, "lr": lr, "weight_decay": 0, "dropout": 0}, seed)
    for epochs, lr, seed in ((15, 0.3, 0), (20, 0.1, 0), (20, 0.2, 0), (20, 0.2, 1), (20, 0.2, 2))
]

if __name__ == "__main__":
    runs.main("q3_cnn", ROWS, __file__)
