"""What a user gets from the wheel, in an environment of its own outside the repository."""

import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LOOP = """
import torch, topospike as ts
from torch import nn
torch.manual_seed(0)
x = torch.rand(64, 16)
y = x[:, :3].argmax(1)
model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3))
sparsifier = ts.sparsify(model, "chts", sparsity=0.8, epochs=4)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
sparsifier.attach(optimizer)
for epoch in range(4):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    sparsifier.update_topology(epoch)
topology = sparsifier.freeze()
snn = ts.convert(model, "dcgs", [x], timesteps=4)
evaluation = ts.evaluate(snn, [(x, y)], timesteps=4)
print(topology.sparsity(), evaluation.accuracy[-1], evaluation.energy_joule[-1])
"""

pytestmark = pytest.mark.slow


class Environment:
    """A virtual environment in a folder, in which nothing of this process is seen."""

    def __init__(self, folder):
        self.folder = folder
        venv.create(folder / "venv", with_pip=True)

    def run(self, *command):
        hidden = ("PYTHONPATH", "VIRTUAL_ENV")
        around = {name: value for name, value in os.environ.items() if name not in hidden}
        return subprocess.run(
            [self.folder / "venv" / "bin" / command[0], *command[1:]],
            cwd=self.folder, env=around, capture_output=True, text=True, timeout=900,
        )  # fmt: skip

    def install(self, what):
        done = self.run("pip", "install", "-q", "-c", ROOT / "constraints.txt", what)
        assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "-w", folder, ROOT], check=True, timeout=300)
    return next(folder.glob("topospike-*.whl"))


@pytest.fixture(scope="module")
def environment(tmp_path_factory, wheel):
    made = Environment(tmp_path_factory.mktemp("outside"))
    made.install(wheel)
    return made


def test_the_wheel_alone_trains_converts_and_evaluates(environment):
    done = environment.run("python", "-c", LOOP)
    assert done.returncode == 0, done.stderr
    sparsity, accuracy, energy = map(float, done.stdout.split())
    assert 0 < sparsity < 1
    assert 0 <= accuracy <= 1
    assert energy > 0


def test_the_wheel_alone_names_the_extra_of_the_command_line(environment):
    done = environment.run("topospike", "demo")
    assert done.returncode == 2
    assert "pip install 'topospike[cli]'" in done.stderr


def test_the_wheel_with_all_extras_runs_the_demo(environment, wheel):
    environment.install(f"{wheel}[all]")
    done = environment.run("topospike", "demo")
    assert done.returncode == 0, done.stderr
    assert (environment.folder / "runs" / "demo" / "report.html").is_file()
