"""What evaluation costs beside the plain run of the same executor: counting, and the ANN's answer.

``snn(x, T)``, ``ts.evaluate(..., ann=False)``, ``ts.evaluate`` and the ANN's forward take turns, in
CPU time of the process. Shown are medians over the turns of the ratio to the plain run of the same
turn. Networks: ``small`` (conv 64-64-A-128-128-A-256-256-A, fc 512-512) and ``vgg16``, weights of 8
bits, 3 x 32 x 32 noise, T = 8: a batch of 64, eight batches of one image, and one image alone,
which pays alone for what is done once an evaluation.

    python benchmarks/counting.py [--net small vgg16] [--executor integer ...] [--quick]
"""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from timing import measured, options, seconds, table
from timing.spiking import untrained

import topospike as ts

STEPS = 8
EXECUTORS = ("decoded", "bf16", "integer", "event")
BATCHES = {"64 images": (64, 1), "8 x 1 image": (1, 8), "1 image": (1, 1)}
METHODS = ("dcgs", "qcfs")


def ratios(actions: dict[str, Callable[[], object]], turns: int) -> tuple[float, dict[str, float]]:
    """Return the seconds of the first action, and what each takes of it in the same turn."""
    for action in actions.values():
        action()
    taken = [{name: measured(action)[0] for name, action in actions.items()} for _ in range(turns)]
    first = next(iter(actions))
    shares = {n: statistics.median(t[n] / t[first] for t in taken) for n in actions if n != first}
    return statistics.median(t[first] for t in taken), shares


def main() -> None:
    """Print a table for each network, with a row for each method, batch and executor."""
    given = options(__doc__, net=("small", "vgg16"), method=METHODS, executor=EXECUTORS)
    for net in given.net[:1] if given.quick else given.net:
        rows, heading = [], [f"{net}: method, batch, executor", "run"]
        for method in given.method[:1] if given.quick else given.method:
            model = untrained(net, sparse=False)
            snn, _ = ts.quantise_weights(ts.convert(model, method, [torch.randn(16, 3, 32, 32)]))
            for name, (images, batches) in BATCHES.items():
                x, y = torch.randn(images, 3, 32, 32), torch.arange(images) % 10
                data = [(x, y)] * batches
                turns = given.repetitions * (1 if images > 1 else 3)
                for executor in given.executor:
                    run = {"timesteps": STEPS, "executor": executor}

                    def plain(run=run, data=data, snn=snn) -> None:
                        with torch.no_grad():
                            for x, _ in data:
                                snn(x, **run)

                    took, shares = ratios(
                        {
                            "run": plain,
                            "counting": lambda: ts.evaluate(snn, data, ann=False, **run),  # noqa: B023
                            "and the ANN": lambda: ts.evaluate(snn, data, **run),  # noqa: B023
                            "ANN": lambda: [snn.analog(x) for x, _ in data],  # noqa: B023
                        },
                        turns,
                    )
                    heading = [heading[0], "run", *shares]
                    name_of = f"{method}, {name}, {executor}"
                    rows.append([name_of, seconds(took), *(f"{s:.2f}" for s in shares.values())])
        table(heading, rows)


if __name__ == "__main__":
    main()
