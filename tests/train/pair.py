"""What the two processes of the distributed tests run; results go to ``<task>-<rank>.pt``.

``python pair.py FOLDER TASK ...`` expects the environment that torchrun sets.
"""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from topospike.errors import TopospikeError
from topospike.evolve import sparsify
from topospike.recipe import TrainSettings
from topospike.train import (
    Processes,
    build_optimizer,
    connect,
    current_processes,
    fit,
    process_group,
    wrap,
)
from topospike.train.distributed import whole_batch_norm

SETTINGS = TrainSettings(epochs=4, learning_rate=0.05, gradient_clip=5.0, label_smoothing=0.1)


def toy_run():
    path = Path(__file__).with_name("toy_run.py")
    spec = importlib.util.spec_from_file_location("toy_run", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain_network():
    """Without dropout, whose noise depends on how a batch is cut, and without batch norm."""
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(96, 48),
            nn.ReLU(),
            nn.Linear(48, 32),
            nn.ReLU(),
            nn.Linear(32, 10),
        )


def normalising_network():
    """With batch norms, one of which takes the statistics of the batch in evaluation too."""
    plain = plain_network()
    norms = nn.BatchNorm2d(6), nn.BatchNorm1d(48, momentum=None, affine=False)
    momentary = nn.BatchNorm1d(32, track_running_stats=False)
    head = nn.Sequential(plain[5], plain[6], momentary, *plain[7:])
    return nn.Sequential(plain[0], norms[0], *plain[1:5], norms[1], *head)


def noisy_network():
    """With batch norm and dropout, whose state a resumed run needs on every process."""
    plain = plain_network()
    return nn.Sequential(plain[0], nn.BatchNorm2d(6), *plain[1:6], nn.Dropout(0.3), *plain[6:])


VARIANTS = {
    "chts": ("chts", SETTINGS, plain_network),
    "rigl": ("rigl", SETTINGS, plain_network),
    "accumulated": ("set", replace(SETTINGS, accumulate=2), plain_network),
    "averaged": ("set", replace(SETTINGS, ema_decay=0.8), plain_network),
    "batch_norm": ("set", replace(SETTINGS, ema_decay=0.5), normalising_network),
}


def controller(model, rule="chts", epochs=4, seed=7):
    x = torch.zeros(2, 1, 8, 8)
    return sparsify(model, rule, sparsity=0.8, epochs=epochs, seed=seed, example_input=x)


def trained(rule, settings, *, folder=None, data=None, network=plain_network):
    """Train as a user does; 149 images leave a last batch that two cannot share equally."""
    model = network()
    sparsifier = controller(model, rule, settings.epochs)
    data = toy_run().digits(train=149) if data is None else data
    result = fit(model, data, settings, folder=folder, seed=1, sparsifier=sparsifier)
    return {
        "state": model.state_dict(),
        "loss": result.train_loss,
        "accuracy": result.validation_accuracy,
        "digest": sparsifier.freeze().digest,
    }


def task_variants(folder, processes):
    return {
        name: trained(rule, settings, folder=folder / name, network=network)
        for name, (rule, settings, network) in VARIANTS.items()
    }


def task_resume(folder, processes):
    toy = toy_run()

    class Interrupted(toy.Batches):
        def __iter__(self):
            for step, batch in enumerate(super().__iter__()):
                if self.epoch == 2 and step == 3:
                    raise KeyboardInterrupt
                yield batch

    options = {"network": noisy_network, "rule": "chtss", "settings": SETTINGS}
    uninterrupted = trained(folder=folder / "whole", **options)
    note = ""
    try:
        trained(folder=folder / "cut", data=toy.digits(train=149, kind=Interrupted), **options)
    except KeyboardInterrupt as stop:
        note = stop.__notes__[0]
    torch.manual_seed(99 + processes.rank)  # whatever happened in between must not matter
    return {"whole": uninterrupted, "cut": trained(folder=folder / "cut", **options), "note": note}


def steps(network, optimizer, processes, *, count=2):
    generator = torch.Generator().manual_seed(5)
    for _ in range(count):
        x = torch.randn(8, 1, 8, 8, generator=generator)
        y = torch.randint(10, (8,), generator=generator)
        x, y, _ = processes.share(x, y)
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()


class Operations(TorchDispatchMode):
    """Names of what runs inside; a profiler's threads have ended a process in its exit."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.name())
        return function(*args, **(kwargs or {}))


def sent_in_steps(network, optimizer, processes):
    """Names of the collectives of two ordinary steps."""
    steps(network, optimizer, processes)  # the first step of DDP arranges its buckets
    with Operations() as seen:
        steps(network, optimizer, processes)
    return sorted({name for name in seen.names if name.startswith("c10d::")})


def task_messages(folder, processes):
    model = plain_network()
    sparsifier = controller(model)
    optimizer = build_optimizer(model, SETTINGS)
    sparsifier.attach(optimizer)
    connect(sparsifier, processes)
    network = wrap(model, processes, device=torch.device("cpu"))
    collectives = sent_in_steps(network, optimizer, processes)
    before = {name: mask.clone() for name, mask in sparsifier.masks.items()}
    sparsifier.update_topology(0)
    after = dict(sparsifier.masks)
    changed = [name for name, mask in after.items() if not torch.equal(mask, before[name])]
    return {"collectives": collectives, "changed": changed, "masks": after}


def message_of(action):
    try:
        action()
    except TopospikeError as error:
        return f"{type(error).__name__}: {error}"
    return "no error"


def task_tampered(folder, processes):
    model = plain_network()
    sparsifier = controller(model)
    optimizer = build_optimizer(model, SETTINGS)
    sparsifier.attach(optimizer)
    connect(sparsifier, processes)
    network = wrap(model, processes, device=torch.device("cpu"))
    if processes.rank == 1:
        model[6].weight_mask[0, :4] ^= True
    before = model[6].weight_mask.clone()
    steps(network, optimizer, processes)
    kept = torch.equal(model[6].weight_mask, before)
    update = message_of(lambda: sparsifier.update_topology(0))
    freeze = message_of(sparsifier.freeze)
    other = controller(plain_network(), seed=processes.rank)
    start = message_of(lambda: connect(other, processes))
    return {
        "kept": kept,
        "update": update,
        "freeze": freeze,
        "start": start,
    }


def task_refused(folder, processes):
    toy = toy_run()
    other_order = toy.digits()
    other_order.train.seed += processes.rank
    model = plain_network()
    order = message_of(lambda: fit(model, other_order, SETTINGS, folder=None, seed=1))
    model = toy.net()
    alone = toy.SetController(model)
    lonely = message_of(
        lambda: fit(model, toy.digits(), SETTINGS, folder=None, seed=1, sparsifier=alone)
    )
    bad = toy.digits()
    bad.train.x[0] = torch.nan  # one image, so in the part of one process
    broken = plain_network()
    nonfinite = message_of(lambda: fit(broken, bad, SETTINGS, folder=None, seed=1))
    moved = [n for n, value in broken.state_dict().items() if not torch.isfinite(value).all()]
    return {"order": order, "lonely": lonely, "nonfinite": nonfinite, "moved": moved}


def task_norms(folder, processes):
    """Batch norm of two images, of one of one pixel, and of one of three, which one process has."""
    norm = nn.BatchNorm1d(1)
    outputs, messages = [], []

    def forward(x):
        part, _, counted = processes.share(x, torch.zeros(len(x)))
        with whole_batch_norm(norm, processes, counted, images=len(x)):
            outputs.append(norm(part)[:counted].detach())

    for values in ([[0.0], [3.0]], [[5.0]], [[[0.0, 3.0, 6.0]]]):
        messages.append(message_of(lambda values=values: forward(torch.tensor(values))))
    found = {"outputs": outputs, "messages": messages, "state": dict(norm.state_dict())}
    norm = nn.BatchNorm1d(1, dtype=torch.float64)
    forward(torch.tensor([[1.0], [1.0 + 1e-9]], dtype=torch.float64))
    return {**found, "double": norm.running_var}


TASKS = {name[5:]: value for name, value in list(globals().items()) if name.startswith("task_")}


if __name__ == "__main__":
    torch.set_num_threads(1)
    target = Path(sys.argv[1])
    with process_group() as group:
        assert group == current_processes() != Processes()
        for task in sys.argv[2:]:
            torch.save(TASKS[task](target / task, group), target / f"{task}-{group.rank}.pt")
            dist.barrier()
