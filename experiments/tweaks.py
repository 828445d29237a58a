"""What q3_cnn.py can't do, for the searches: each tweak replaces something in the script."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def place_dropout(script, convolution, first, last):
    """Drop these shares before the second convolution (whole channels) and the linear layers."""
    network = script.NeuralNetwork

    def build(batch_norm, _):
        model = network(batch_norm)
        model.convolutions.insert(3, nn.Dropout2d(convolution))
        model.linears[1].p, model.linears[5].p = first, last
        return model

    script.NeuralNetwork = build


def average_weights(script, decay):
    """Evaluate the exponential moving average of the weights and of batch norm's statistics."""
    train_loop, test_loop, averages = script.train_loop, script.test_loop, []

    def train(batches, model, loss_fn, optimizer):
        if not averages:
            mean = get_ema_multi_avg_fn(decay)
            average = AveragedModel(model, multi_avg_fn=mean, use_buffers=True)
            optimizer.register_step_post_hook(lambda *_: average.update_parameters(model))
            averages.append(average)
        return train_loop(batches, model, loss_fn, optimizer)

    script.train_loop = train
    script.test_loop = lambda batches, _, loss_fn: test_loop(batches, averages[0], loss_fn)


def bend(script, pixels):
    """Bend the images beside the affine maps: smooth random shifts, normal, of that s.d. in pixels.

    The shifts are drawn on a grid of 5 x 5 places and interpolated. After the elastic distortions
    of Simard, Steinkraus, Platt 2003, which smooth a shift per pixel instead.
    """

    def affine_grid(theta, size, **options):
        shifts = pixels / 14 * torch.randn(size[0], 2, 5, 5)  # the unit is 14 pixels
        shifts = F.interpolate(shifts, size[2:], mode="bicubic")
        return F.affine_grid(theta, size, **options) + shifts.permute(0, 2, 3, 1)

    script.F = SimpleNamespace(affine_grid=affine_grid, grid_sample=F.grid_sample)


TWEAKS = {"place_dropout": place_dropout, "average_weights": average_weights, "bend": bend}
