"""What the scripts can't do, for the searches: context managers that change them while inside."""

import contextlib
from functools import partial
from unittest import mock

import torch.nn.functional as F
from torch import nn

import q3_cnn


@contextlib.contextmanager
def dropout_places(shares):
    """Drop these shares of the inputs of conv 2 (whole channels) and of both linear layers."""

    def drop(share, layer, inputs):
        dropout = F.dropout2d if isinstance(layer, nn.Conv2d) else F.dropout
        return dropout(inputs[0], share, layer.training)

    class Placed(q3_cnn.NeuralNetwork):
        def __init__(self, *args):
            super().__init__(*args)
            layers = [layer for layer in self.stack if isinstance(layer, nn.Conv2d | nn.Linear)]
            for layer, share in zip(layers[1:], shares, strict=True):
                layer.register_forward_pre_hook(partial(drop, share))

    with mock.patch.object(q3_cnn, "NeuralNetwork", Placed):
        yield


TWEAKS = {"dropout_places": dropout_places}
