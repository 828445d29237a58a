"""Question 3 (c): what longer training with dropout is worth, on held-out images.

    python experiments/search_q3_longer.py --data-dir DIR

Other rates and batch sizes too, which would have to be those of question 2 and (b) as well. Writes
search_q3_longer.json beside this file; about 25 minutes on two cores.
"""

import runs

# epochs, batch size, rate; dropout before the second convolution (whole channels), the first and
# the second linear layer
ROWS = [
    (30, 128, 0.3, 0, 0.25, 0.25),
    (30, 128, 0.2, 0, 0.25, 0.25),
    (30, 64, 0.1, 0, 0.25, 0.25),
    (30, 128, 0.3, 0, 0.5, 0.25),
    (40, 64, 0.2, 0, 0.25, 0.25),
    (40, 64, 0.2, 0, 0.5, 0.5),
    (40, 64, 0.2, 0, 0.5, 0.25),
    (40, 64, 0.2, 0.1, 0.25, 0.5),
]

if __name__ == "__main__":
    jobs = [
        {
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "weight_decay": 1e-5,
            "tweak": ["place_dropout", *places],
        }
        for epochs, batch_size, lr, *places in ROWS
    ]
    runs.main("q3_cnn", [(job, 0) for job in jobs], __file__)
