"""Question 3 (d): tweaks that the script does not have, on held-out images.

    python experiments/search_q3_bn_tweaks.py --data-dir DIR

Each row adds one tweak of tweaks.py to the starting recipe of search_q3_bn.py. Writes
search_q3_bn_tweaks.json beside this file; about 10 minutes on two cores.
"""

from runs import main
from search_q3_bn import START

BATCHES = START["epochs"] * 391
CHANGES = [
    {"tweak": ["augment_share", 0.5]},
    {"tweak": ["clean_batches", 0.2, BATCHES]},
    {"tweak": ["average_weights", 0.998]},
]

if __name__ == "__main__":
    main("q3_cnn", [(START | change, 0) for change in CHANGES], __file__)
