"""Tweaks that q3_cnn.py does not have, for the searches: each replaces functions of the script."""

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def average_weights(script, decay):
    """Evaluate a running average of the weights: decay 0.998 remembers some 500 steps."""
    train_loop, test_loop, averaged = script.train_loop, script.test_loop, []

    def averaging_train_loop(batches, model, loss_fn, optimizer):
        if not averaged:
            average = get_ema_multi_avg_fn(decay)
            averaged.append(AveragedModel(model, multi_avg_fn=average, use_buffers=True))
            optimizer.register_step_post_hook(lambda *_: averaged[0].update_parameters(model))
        return train_loop(batches, model, loss_fn, optimizer)

    script.train_loop = averaging_train_loop
    script.test_loop = lambda batches, _, loss_fn: test_loop(batches, averaged[0], loss_fn)


def augment_share(script, share):
    """Leave 1 - share of the images as they are: the affine maps blur what they move."""
    random_affine = script.random_affine

    def sometimes(X, strength):
        chosen = torch.rand(len(X), 1, 1, 1, device=X.device) < share
        return torch.where(chosen, random_affine(X, strength), X)

    script.random_affine = sometimes


def clean_batches(script, share, total):
    """Augment none of the last `share` of `total` batches."""
    random_affine, seen = script.random_affine, []

    def early(X, strength):
        seen.append(None)
        return random_affine(X, strength) if len(seen) <= (1 - share) * total else X

    script.random_affine = early


def place_dropout(script, convolution, first, last):
    """Drop these shares before the second convolution (whole channels) and the linear layers."""
    network = script.NeuralNetwork

    def build(batch_norm, _):
        model = network(batch_norm)
        model.convolutions.insert(3, nn.Dropout2d(convolution))
        model.linears[1].p, model.linears[5].p = first, last
        return model

    script.NeuralNetwork = build


TWEAKS = {
    function.__name__: function
    for function in (average_weights, augment_share, clean_batches, place_dropout)
}
