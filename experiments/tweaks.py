"""What q3_cnn.py can't do, for the searches: each tweak replaces something in the script."""

from torch import nn


def place_dropout(script, convolution, first, last):
    """Drop these shares before the second convolution (whole channels) and the linear layers."""
    network = script.NeuralNetwork

    def build(batch_norm, _):
        model = network(batch_norm)
        model.convolutions.insert(3, nn.Dropout2d(convolution))
        model.linears[1].p, model.linears[5].p = first, last
        return model

    script.NeuralNetwork = build


TWEAKS = {"place_dropout": place_dropout}
