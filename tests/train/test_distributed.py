"""Two real processes over gloo on localhost; what they do is in ``pair.py``."""

import importlib.util
import re
import shutil
from pathlib import Path

import pytest
import torch

from topospike.errors import ConfigError
from topospike.train import (
    CheckpointWarning,
    LostProcessError,
    Processes,
    current_processes,
    process_group,
)
from topospike.train.distributed import local_device, losses_explained

pytestmark = pytest.mark.slow


def module(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def script():
    return module("pair")


def results(folder, *tasks):
    module("launch").pair(Path(__file__).with_name("pair.py"), folder, *tasks)
    found = {
        task: [torch.load(folder / f"{task}-{rank}.pt", weights_only=True) for rank in range(2)]
        for task in tasks
    }
    return {"folder": folder, **found}


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    return results(tmp_path_factory.mktemp("quick"), "messages", "tampered", "refused", "norms")


@pytest.fixture(scope="module")
def thorough(tmp_path_factory):
    return results(tmp_path_factory.mktemp("thorough"), "variants", "resume")


@pytest.mark.distributed
def test_ordinary_steps_send_gradients_and_no_mask(quick):
    for found in quick["messages"]:
        assert found["collectives"] == ["c10d::allreduce_"]


@pytest.mark.distributed
def test_an_update_gives_all_processes_the_same_new_links(quick):
    one, other = quick["messages"]
    assert one["changed"] == other["changed"] != []
    assert all(torch.equal(mask, other["masks"][name]) for name, mask in one["masks"].items())


@pytest.mark.distributed
def test_batch_norm_counts_the_images_that_count(quick):
    """As torch's own does alone; one value per channel is an error on every process."""
    norm = torch.nn.BatchNorm1d(1)
    batches = [torch.tensor([[0.0], [3.0]]), torch.tensor([[[0.0, 3.0, 6.0]]])]
    expected = [norm(x).detach() for x in batches]
    one, other = quick["norms"]
    torch.testing.assert_close(torch.cat([one["outputs"][0], other["outputs"][0]]), expected[0])
    torch.testing.assert_close(one["outputs"][1], expected[1])
    assert len(other["outputs"][1]) == 0
    for found in (one, other):
        good, bad, also_good = found["messages"]
        assert good == also_good == "no error"
        assert bad.startswith("ConfigError: batch norm needs more than one value")
        for name, value in norm.state_dict().items():
            torch.testing.assert_close(found["state"][name], value)
        assert found["double"].dtype == torch.float64
        assert float(found["double"]) == pytest.approx(0.9 + 0.1 * 0.5e-18, rel=1e-15)


@pytest.mark.distributed
@pytest.mark.parametrize("moment", ["start", "update", "freeze"])
def test_a_mask_that_differs_is_found_on_every_process(quick, moment):
    layer = "0" if moment == "start" else "6"
    for found in quick["tampered"]:
        assert found[moment].startswith("TopologyViolation")
        assert f"layer {layer!r} on process 1 is not that of process 0" in found[moment]


@pytest.mark.distributed
def test_a_tampered_mask_is_not_overwritten_by_steps(quick):
    assert all(found["kept"] for found in quick["tampered"])


@pytest.mark.distributed
def test_data_and_controllers_unfit_for_several_processes_are_refused(quick):
    for found in quick["refused"]:
        assert found["order"].startswith("ConfigError: the order of the first training batch of")
        assert "depend on the seed and the epoch alone" in found["order"]
        assert found["lonely"].startswith("ConfigError: SetController has no share_decisions")


@pytest.mark.distributed
def test_a_loss_that_is_not_finite_stops_all_processes_at_the_same_batch(quick):
    messages = [found["nonfinite"] for found in quick["refused"]]
    places = [re.search(r"epoch \d, step \d", message)[0] for message in messages]
    assert places[0] == places[1]
    assert all(message.startswith("NonFiniteError") for message in messages)
    assert sum("The batch itself holds 64 non-finite values" in m for m in messages) == 1
    assert sum("of another process is not finite" in m for m in messages) == 1
    assert all(found["moved"] == [] for found in quick["refused"])


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("variant", ["chts", "rigl", "accumulated", "averaged", "batch_norm"])
def test_two_processes_equal_one_process_of_the_whole_batch(thorough, script, variant):
    mine, other = (found[variant] for found in thorough["variants"])
    rule, settings, network = script.VARIANTS[variant]
    alone = script.trained(rule, settings, network=network)
    assert mine["digest"] == other["digest"] == alone["digest"]
    assert mine["accuracy"] == other["accuracy"] == alone["accuracy"]
    assert mine["loss"] == other["loss"] == pytest.approx(alone["loss"], rel=1e-5)
    for name, value in alone["state"].items():
        assert torch.equal(mine["state"][name], other["state"][name]), name
        torch.testing.assert_close(mine["state"][name], value, rtol=1e-4, atol=2e-6)


@pytest.mark.slow
@pytest.mark.distributed
def test_resume_on_two_processes_is_bit_identical(thorough):
    states = []
    for found in thorough["resume"]:
        whole, cut = found["whole"], found["cut"]
        assert "checkpoint after 2 epochs is intact" in found["note"]
        assert (whole["loss"], whole["digest"]) == (cut["loss"], cut["digest"])
        for name, value in whole["state"].items():
            assert torch.equal(cut["state"][name], value), name
        states.append(cut["state"])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
@pytest.mark.distributed
def test_one_process_goes_on_where_two_stopped_and_says_so(thorough, script, tmp_path):
    shutil.copytree(thorough["folder"] / "resume" / "whole", tmp_path, dirs_exist_ok=True)
    (tmp_path / "checkpoint" / "epoch-00004.safetensors").unlink()
    options = {"network": script.noisy_network, "rule": "chtss", "settings": script.SETTINGS}
    with pytest.warns(CheckpointWarning, match=r"processes 2 -> 1.*not bit for bit"):
        resumed = script.trained(folder=tmp_path, **options)
    # The links change for the last time before that, so they are the same.
    assert resumed["digest"] == thorough["resume"][0]["whole"]["digest"]
    assert resumed["loss"] == pytest.approx(thorough["resume"][0]["whole"]["loss"], rel=0.1)


@pytest.mark.parametrize(("images", "count"), [(7, 1), (7, 2), (8, 3), (2, 4)])
def test_shares_are_disjoint_and_complete(images, count):
    x, y = torch.randn(images, 3), torch.arange(images)
    shares = [Processes(rank, count).share(x, y) for rank in range(count)]
    counted = [part[:n] for _, part, n in shares]
    assert torch.cat(counted).tolist() == list(range(images))
    assert max(map(len, counted)) - min(map(len, counted)) <= 1
    for part_x, part_y, _ in shares:
        assert len(part_x) == len(part_y) >= 1
        assert torch.equal(part_x, x[part_y])


def test_a_process_on_its_own_joins_nothing(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    with process_group() as processes:
        assert processes == Processes() == current_processes()
        assert processes.broadcast("what") == "what"
        assert processes.gather(7) == [7]
        assert processes.seed(5) == 5


def test_the_noise_of_processes_and_runs_is_never_the_same():
    seeds = {
        Processes(rank, 8).seed(seed) for rank in range(8) for seed in (0, 1, 2**32, 1_000_003)
    }
    assert len(seeds) == 32


def test_half_an_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match=r"lacks RANK, MASTER_ADDR, MASTER_PORT\. Start"):
        process_group().__enter__()


def test_every_process_takes_its_own_accelerator(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert local_device(torch.device("cuda")) == torch.device("cuda", 3)
    assert local_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
    assert local_device(torch.device("cpu")) == torch.device("cpu")


def test_only_broken_connections_are_explained():
    with pytest.raises(LostProcessError, match="another process of this run"), losses_explained():
        raise RuntimeError("[gloo/transport/tcp/pair.cc:553] Connection closed by peer")
    with pytest.raises(RuntimeError, match="out of memory"), losses_explained():
        raise RuntimeError("out of memory")
