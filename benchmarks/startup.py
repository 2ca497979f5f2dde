"""What the package adds to the time in which Python starts.

Every line is a fresh interpreter, in turn with the others: nothing, torch alone, torch and every
public name of topospike, and the command line's help, which loads no torch. Bounds to hold on an
idle machine: half a second for all names beyond torch, one second for help.

    python benchmarks/startup.py [--quick] [--repetitions 5]
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from timing import alternate, options, seconds, table

PROGRAMS = {
    "Python": ["-c", "pass"],
    "torch": ["-c", "import torch"],
    "torch and every public name": [
        "-c",
        "import torch, topospike as ts\nfor name in ts.__all__: getattr(ts, name)",
    ],
    "topospike --help": ["-m", "topospike", "--help"],
    "topospike run --help": ["-m", "topospike", "run", "--help"],
}


def main() -> None:
    """Print the table."""
    chosen = options(__doc__)
    actions = {
        name: partial(
            subprocess.run, [sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL
        )
        for name, arguments in PROGRAMS.items()
    }
    took = alternate(actions, 2 if chosen.quick else chosen.repetitions)
    torch_alone = took["torch"].wall
    rows = [
        [name, seconds(each.wall), f"{each.wall / torch_alone:.2f}"] for name, each in took.items()
    ]
    table(["program", "wall", "of torch"], rows)
    added = took["torch and every public name"].wall - torch_alone
    print(f"every public name beyond torch: {seconds(added)}, {added / torch_alone:.2f} of torch")


if __name__ == "__main__":
    main()
