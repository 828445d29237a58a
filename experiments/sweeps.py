"""The sweeps that search.py trains and tables.py shows, and where their results are.

Every row is written out here and refers to nothing in the two scripts: their settings may change,
and these rows still are the settings of the runs in results/. Needs the standard library only.
"""

import json
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results"
SCRIPTS = ["q2_mlp", "q3_cnn"]

MLP = {
    "epochs": 17,
    "batch_size": 64,
    "lr": 0.2,
}
CNN = {
    "epochs": 17,
    "batch_size": 64,
    "lr": 0.2,
    "one_cycle": False,
    "batch_norm": False,
    "weight_decay": 0.0,
    "dropout": 0.0,
    "affine": 0.0,
    "deskew": False,
    "normalize": False,
    "drop_last": False,
}
NORM = CNN | {"batch_norm": True}
CYCLE = CNN | {"one_cycle": True}
NORM_CYCLE = CNN | {"batch_norm": True, "one_cycle": True, "lr": 0.5}
AUGMENTED = NORM_CYCLE | {"affine": 0.1}
RECIPE = AUGMENTED | {"weight_decay": 5e-4}
RECIPE_40 = RECIPE | {"epochs": 40}
STRAIGHT = RECIPE | {"deskew": True, "normalize": True}
FULL = STRAIGHT | {"drop_last": True}
DROPOUT = CNN | {"dropout": 0.25}
REG_18 = CNN | {"epochs": 18, "weight_decay": 1e-5, "dropout": 0.25}
# Dropout of these shares before conv 2 (whole channels), linear 1, linear 2. The scripts can't do
# that any more, nor change the eps of batch norm: rows with dropout_places or eps are kept as they
# were recorded and can't be trained.
PLACED_18 = CNN | {"epochs": 18, "weight_decay": 1e-5}
PLACED_40 = CNN | {"epochs": 40, "weight_decay": 1e-5}

RATES = [0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0, 30.0]

# The rows of each sweep: settings and seeds.
SWEEPS = {
    "q2": [
        (MLP | {"epochs": 5, "lr": 0.001}, [0]),  # the tutorial's
        # At a constant rate, a shorter run is the beginning of a longer one.
        (MLP | {"epochs": 30, "batch_size": 32, "lr": 0.03}, [0]),
        (MLP | {"epochs": 30, "batch_size": 32, "lr": 0.1}, [0]),
        (MLP | {"epochs": 30, "batch_size": 32, "lr": 0.2}, [0]),
        (MLP | {"epochs": 30, "batch_size": 32, "lr": 0.3}, range(3)),
        (MLP | {"epochs": 30, "batch_size": 32, "lr": 0.5}, [0]),
        (MLP | {"epochs": 30, "lr": 0.03}, [0]),
        (MLP | {"epochs": 30, "lr": 0.1}, [0]),
        (MLP | {"epochs": 30, "lr": 0.2}, range(3)),
        (MLP | {"epochs": 30, "lr": 0.3}, range(3)),
        (MLP | {"epochs": 30, "lr": 0.5}, range(3)),
        (MLP | {"epochs": 30, "batch_size": 128, "lr": 0.03}, [0]),
        (MLP | {"epochs": 30, "batch_size": 128, "lr": 0.1}, [0]),
        (MLP | {"epochs": 30, "batch_size": 128, "lr": 0.2}, [0]),
        (MLP | {"epochs": 30, "batch_size": 128, "lr": 0.3}, range(3)),
        (MLP | {"epochs": 30, "batch_size": 128, "lr": 0.5}, [0]),
        (MLP | {"epochs": 16, "lr": 0.1}, range(5)),
        (MLP | {"epochs": 16, "lr": 0.15}, range(5)),
        (MLP | {"epochs": 16, "lr": 0.2}, range(5)),
        (MLP | {"epochs": 16, "lr": 0.25}, range(5)),
        (MLP | {"epochs": 16, "lr": 0.3}, range(5)),
        (MLP | {"epochs": 16, "batch_size": 32, "lr": 0.05}, range(5)),
        (MLP | {"epochs": 16, "batch_size": 32, "lr": 0.1}, range(3)),
    ],
    "base": [
        (CNN | {"epochs": 16, "lr": 0.1}, range(3)),
        (CNN | {"epochs": 16, "lr": 0.15}, range(3)),
        (CNN | {"epochs": 16, "lr": 0.2}, range(3)),
        (CNN | {"epochs": 16, "lr": 0.25}, range(3)),
        (CNN | {"epochs": 16, "batch_size": 32, "lr": 0.1}, range(3)),
        (CNN | {"epochs": 20}, range(3)),
        (CNN | {"epochs": 20, "lr": 0.1}, [0]),
        (CNN | {"epochs": 15, "lr": 0.3}, [0]),
    ],
    "reg": [
        (REG_18 | {"weight_decay": 0.0}, [0]),
        (REG_18 | {"weight_decay": 5e-5}, [0]),
        (REG_18 | {"weight_decay": 0.0, "dropout": 0.5}, [0]),
        (REG_18 | {"weight_decay": 5e-4, "dropout": 0.5}, [0]),
        (REG_18 | {"weight_decay": 5e-4, "dropout": 0.0}, [0]),
        (REG_18 | {"dropout": 0.15}, [1]),
        (REG_18 | {"dropout": 0.4}, [1]),
        (REG_18 | {"weight_decay": 1e-4}, [1]),
        (REG_18, range(3)),
        (DROPOUT, range(3)),
        (DROPOUT | {"weight_decay": 1e-5}, range(3)),
        (DROPOUT | {"weight_decay": 1e-4}, range(3)),
        (DROPOUT | {"weight_decay": 2e-4}, range(3)),
        (DROPOUT | {"weight_decay": 5e-4}, range(3)),
        (DROPOUT | {"weight_decay": 1e-5, "dropout": 0.15}, range(3)),
        (DROPOUT | {"weight_decay": 1e-5, "dropout": 0.4}, range(3)),
        (DROPOUT | {"weight_decay": 1e-5, "dropout": 0.5}, range(3)),
    ],
    "places": [
        (PLACED_18 | {"dropout_places": [0.1, 0.25, 0.25]}, [1]),
        (PLACED_18 | {"dropout_places": [0.0, 0.25, 0.5]}, [1]),
        (PLACED_18 | {"dropout_places": [0.0, 0.5, 0.25]}, [1]),
        (PLACED_18 | {"dropout_places": [0.0, 0.0, 0.5]}, [1]),
        (PLACED_18 | {"dropout_places": [0.1, 0.25, 0.5]}, [1]),
        (PLACED_18 | {"dropout_places": [0.1, 0.25, 0.25], "weight_decay": 5e-5}, [0]),
    ],
    "longer": [
        (NORM | {"epochs": 18}, range(3)),
        (REG_18 | {"epochs": 40}, [0]),
        (REG_18 | {"epochs": 40, "dropout": 0.5}, [0]),
        (PLACED_40 | {"dropout_places": [0.0, 0.5, 0.25]}, [0]),
        (PLACED_40 | {"dropout_places": [0.1, 0.25, 0.5]}, [0]),
        (REG_18 | {"epochs": 30, "lr": 0.1}, [0]),
        (REG_18 | {"epochs": 30, "batch_size": 128}, [0]),
        (REG_18 | {"epochs": 30, "batch_size": 128, "lr": 0.3}, [0]),
        (
            PLACED_18
            | {"epochs": 30, "batch_size": 128, "lr": 0.3, "dropout_places": [0.0, 0.5, 0.25]},
            [0],
        ),
    ],
    "rates": [
        *[(CNN | {"epochs": 2, "lr": rate}, [0]) for rate in RATES],
        *[(NORM | {"epochs": 2, "lr": rate}, [0]) for rate in RATES],
    ],
    "recipe": [
        (RECIPE, range(3)),
        (RECIPE | {"affine": 0.15}, range(3)),
        (RECIPE | {"affine": 0.15, "lr": 1.0}, range(3)),
        (RECIPE | {"affine": 0.15, "weight_decay": 0.0}, range(3)),
        (RECIPE | {"affine": 0.15, "weight_decay": 0.0, "lr": 1.0}, range(3)),
        (RECIPE | {"affine": 0.15, "epochs": 15}, range(2)),
        (RECIPE | {"weight_decay": 1e-3}, range(3)),
        (RECIPE | {"weight_decay": 2e-3}, [0]),
        (RECIPE | {"batch_norm": False, "lr": 0.3}, range(5)),
    ],
    "length": [
        (RECIPE_40, range(3)),
        (RECIPE_40 | {"affine": 0.15}, range(3)),
        (RECIPE_40 | {"affine": 0.2}, range(3)),
        (RECIPE_40 | {"dropout": 0.1}, range(3)),
        (RECIPE_40 | {"dropout": 0.25}, range(3)),
        (RECIPE_40 | {"weight_decay": 2e-4}, range(3)),
        (RECIPE_40 | {"batch_size": 32}, range(3)),
        (RECIPE | {"epochs": 60, "affine": 0.15}, range(3)),
        (RECIPE | {"epochs": 60, "affine": 0.15, "weight_decay": 2e-4}, range(3)),
    ],
    "straight": [
        (RECIPE, range(5)),
        (RECIPE | {"normalize": True}, range(5)),
        (RECIPE | {"eps": 0.01}, range(5)),
        (RECIPE | {"deskew": True}, range(5)),
        (STRAIGHT, range(5)),
        (STRAIGHT | {"eps": 0.01}, range(5)),
        (FULL, range(5)),
        (FULL | {"eps": 0.01}, range(5)),
        (FULL | {"lr": 0.2}, range(5)),
        (FULL | {"lr": 1.0}, range(5)),
        (FULL | {"affine": 0.05}, range(5)),
        (FULL | {"affine": 0.15}, range(5)),
    ],
    # FULL without batch norm, at several peaks.
    "without": [
        (FULL | {"batch_norm": False, "lr": 0.2}, range(5)),
        (FULL | {"batch_norm": False, "lr": 0.3}, range(5)),
        (FULL | {"batch_norm": False, "lr": 0.5}, range(3)),
    ],
    "constant": [
        (NORM, range(3)),
        (NORM | {"lr": 0.3}, range(3)),
        (NORM | {"lr": 0.5}, range(3)),
        (NORM | {"lr": 1.0}, range(3)),
    ],
    "peaks": [
        (CYCLE | {"lr": 0.3}, range(5)),
        (CYCLE | {"lr": 0.5}, range(5)),
        (CYCLE | {"lr": 0.5, "affine": 0.1}, range(5)),
        (CYCLE | {"lr": 1.0}, [0]),
    ],
    # tables.py names these rows one by one.
    "ladder": [
        (CNN, range(5)),
        (NORM, range(5)),
        (NORM | {"lr": 0.3}, range(5)),
        (NORM_CYCLE, range(5)),
        (AUGMENTED, range(5)),
        (RECIPE, range(5)),
        (RECIPE | {"normalize": True}, range(5)),
        (STRAIGHT, range(5)),
        (FULL, range(5)),
    ],
    # Without and with batch norm, one-cycle schedule, affine augmentation, in the order of counting
    # in binary; under the schedule, each at a peak at which every seed learns.
    "factorial": [
        (CNN, range(5)),
        (CNN | {"affine": 0.1}, range(5)),
        (CYCLE | {"lr": 0.3}, range(5)),
        (CYCLE | {"lr": 0.3, "affine": 0.1}, range(5)),
        (NORM, range(5)),
        (NORM | {"affine": 0.1}, range(5)),
        (NORM_CYCLE, range(5)),
        (AUGMENTED, range(5)),
    ],
}


def jobs(sweep):
    """Return the runs of a sweep: script, settings, seed."""
    runs = []
    for settings, seeds in SWEEPS[sweep]:
        script = "q3_cnn" if "batch_norm" in settings else "q2_mlp"
        for seed in seeds:
            runs.append((script, settings, seed))
    return runs


def key(script, settings, seed):
    """Return what a run is known by."""
    return json.dumps([script, settings, seed], sort_keys=True)


def load(script):
    """Return the recorded runs of a script, in the order in which they were trained."""
    path = RESULTS / f"{script}.json"
    return json.loads(path.read_text()) if path.exists() else []


def recorded():
    """Return all recorded runs by their keys."""
    return {
        key(script, run["settings"], run["seed"]): run for script in SCRIPTS for run in load(script)
    }
