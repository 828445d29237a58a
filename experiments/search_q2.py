"""Question 2: learning rate x batch size of plain SGD, on held-out images.

    python experiments/search_q2.py --data-dir DIR

A constant rate makes the figures after 20 epochs those of a run of 20 epochs, so that one run of 30
epochs answers for every length up to it. Writes search_q2.json; about 13 minutes on two cores.
"""

from runs import main

TUTORIAL = {"epochs": 5, "batch_size": 64, "lr": 1e-3}
GRID = [
    {"epochs": 30, "batch_size": batch_size, "lr": lr}
    for batch_size in (32, 64, 128)
    for lr in (0.03, 0.1, 0.2, 0.3, 0.5)
]
FINALISTS = [{"epochs": 30, "batch_size": size, "lr": 0.3} for size in (32, 64, 128)]
FINALISTS += [{"epochs": 30, "batch_size": 64, "lr": lr} for lr in (0.2, 0.5)]

if __name__ == "__main__":
    jobs = [(settings, 0) for settings in [TUTORIAL, *GRID]]
    jobs += [(settings, seed) for settings in FINALISTS for seed in (1, 2)]
    main("q2_mlp", jobs, __file__)
