"""A small complete run for the tests of training: digits, a convolutional net, a SET controller.

Run as a script it trains in the folder given as its first argument and stops for ever (second
argument ``mid-epoch``) or kills itself (``mid-save``) at a fixed place, for the tests that kill it.
The third argument is the number of threads.
"""

import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import nn

from topospike.contracts import LayerChange, TopologyUpdate
from topospike.recipe import TrainSettings
from topospike.train import fit

SETTINGS = TrainSettings(
    epochs=5, learning_rate=0.05, warmup_epochs=0.5, label_smoothing=0.1, gradient_clip=5.0
)
SEED = 3
ENOUGH = 3  # epochs before the run is killed


class Batches:
    """Batches of tensors; with a seed shuffled and jittered by (seed, epoch)."""

    def __init__(self, x, y, batch_size, seed=None):
        self.x, self.y, self.batch_size, self.seed = x, y, batch_size, seed
        self.epoch = 0

    def __len__(self):
        return -(-len(self.y) // self.batch_size)

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        x, y = self.x, self.y
        if self.seed is not None:
            generator = torch.Generator().manual_seed(1000 * self.seed + self.epoch)
            order = torch.randperm(len(y), generator=generator)
            x, y = x[order], y[order]
            x = x + 0.1 * torch.randn(x.shape, generator=generator)
        yield from zip(x.split(self.batch_size), y.split(self.batch_size), strict=True)


class StoppingBatches(Batches):
    """Writes a marker and waits, in the middle of epoch ``ENOUGH``."""

    marker = Path()

    def __iter__(self):
        for step, batch in enumerate(super().__iter__()):
            if self.epoch == ENOUGH and step == 2:
                self.marker.write_text("here")
                time.sleep(600)
            yield batch


def digits(train=160, validation=80, batch_size=32, kind=Batches):
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32).unsqueeze(1) / 16 - 0.3
    y = torch.tensor(bunch.target)
    end = train + validation
    return SimpleNamespace(
        train=kind(x[:train], y[:train], batch_size, seed=SEED),
        validation=Batches(x[train:end], y[train:end], 64),
        classes=10,
    )


class Net(nn.Module):
    """conv - bn - relu - pool - fc1 (sparse) - relu - dropout - classifier."""

    def __init__(self, classes=10, dropout=0.2):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.fc1 = nn.Linear(6 * 16, 32)
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(32, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        x = nn.functional.max_pool2d(x, 2).flatten(1)
        return self.classifier(self.drop(torch.relu(self.fc1(x))))


def net(**options):
    with torch.random.fork_rng():
        torch.manual_seed(11)
        return Net(**options)


class SetController:
    """Magnitude removal and random regrowth in every layer that has a ``weight_mask``."""

    unit = "epoch"

    def __init__(self, model, sparsity=0.7, seed=5, last_update=3):
        self.model, self.last_update = model, last_update
        self.generator = torch.Generator().manual_seed(seed)
        self.updates = 0
        layer = model.fc1
        keep = round((1 - sparsity) * layer.weight.numel())
        mask = torch.zeros(layer.weight.numel(), dtype=torch.bool)
        mask[torch.randperm(mask.numel(), generator=self.generator)[:keep]] = True
        layer.register_buffer("weight_mask", mask.view_as(layer.weight))
        layer.weight.data.masked_fill_(~layer.weight_mask, 0)

    def attach(self, optimizer):
        self.optimizer = optimizer
        optimizer.register_step_pre_hook(lambda *_: self.mask_gradients())

    def mask_gradients(self):
        layer = self.model.fc1
        if layer.weight.grad is not None:
            layer.weight.grad.masked_fill_(~layer.weight_mask, 0)

    def check_schedule(self, epochs, steps_per_epoch):
        assert steps_per_epoch >= 1

    def is_update_epoch(self, epoch):
        return epoch < self.last_update

    @torch.no_grad()
    def update_topology(self, epoch):
        weight, mask = self.model.fc1.weight, self.model.fc1.weight_mask
        before = int(mask.sum())
        active = mask.flatten().nonzero().flatten()
        removed = active[weight.flatten()[active].abs().argsort()[: before // 3]]
        absent = (~mask).flatten().nonzero().flatten()
        chosen = torch.randperm(len(absent), generator=self.generator)[: len(removed)]
        mask.view(-1)[removed] = False
        mask.view(-1)[absent[chosen]] = True
        weight.masked_fill_(~mask, 0)
        for slot in self.optimizer.state[weight].values():
            slot.masked_fill_(~mask, 0)
        self.updates += 1
        change = LayerChange(
            before, len(removed), 0, len(chosen), int(mask.sum()), before, 0, overlap=0.0
        )
        sparsity = 1 - float(mask.float().mean())
        return TopologyUpdate(self.updates, epoch, {"fc1": change}, sparsity, 1.0, 1.0, 0.5)

    def state_dict(self):
        return {"updates": self.updates, "generator": self.generator.get_state()}

    def load_state_dict(self, state_dict):
        self.updates = state_dict["updates"]
        self.generator.set_state(state_dict["generator"])


def run(folder, *, settings=SETTINGS, data=None, sparse=True, seed=SEED, **options):
    """Train a fresh model; returns (model, controller, result)."""
    model = net()
    controller = SetController(model) if sparse else None
    result = fit(
        model,
        digits() if data is None else data,
        settings,
        folder=folder,
        seed=seed,
        sparsifier=controller,
        **options,
    )
    return model, controller, result


def kill_in_the_flush_of_a_save(folder):
    flush = os.fsync

    def counted(handle):
        if list((folder / "checkpoint").glob(f".epoch-{ENOUGH + 1:05d}*")):
            os.kill(os.getpid(), signal.SIGKILL)
        flush(handle)

    os.fsync = counted


if __name__ == "__main__":
    target, place = Path(sys.argv[1]), sys.argv[2]
    torch.set_num_threads(int(sys.argv[3]))
    if place == "mid-epoch":
        StoppingBatches.marker = target / "marker"
        run(target, data=digits(kind=StoppingBatches))
    else:
        kill_in_the_flush_of_a_save(target)
        run(target)
