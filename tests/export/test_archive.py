"""A saved network is the network: same logits, same counts; and a bad file is one clear error."""

import copy
import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import topospike as ts
from topospike.errors import CheckpointError, ConversionError
from topospike.export.archive import FILE
from topospike.export.graph_json import function_named
from topospike.files.seal import digest_of_plain
from topospike.models.qcfs import QCFS, SlipReLU
from topospike.snn.coding import CODINGS, Coding
from topospike.snn.neurons import (
    Identity,
    IntegrateAndFire,
    MultiThreshold,
    Neuron,
    SignedIntegrateAndFire,
)
from topospike.topology import register_mask


class Residual(nn.Module):
    """Batch norms, an in-place add, a functional ReLU, a padded pool and a sparse classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 1)
        )
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.head = nn.Linear(8 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = self.pool(torch.relu(x + self.block(x)))
        return self.head(x.flatten(1))


class Attention(nn.Module):
    """Two products, a softmax, a layer norm, a constant buffer, a tied weight."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.qkv = nn.Linear(3 * 8, 12), nn.Linear(12, 36)
        self.out, self.norm = nn.Linear(12, 12), nn.LayerNorm(12)
        self.register_buffer("position", torch.linspace(-1, 1, 8)[:, None], persistent=False)
        self.again = nn.Linear(12, 12)
        self.again.weight = self.out.weight
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.embed(x.transpose(1, 2).flatten(2)) + self.position
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out(nn.functional.scaled_dot_product_attention(q, k, v))
        return self.head(nn.functional.gelu(self.again(x)).mean(1))


def images(n: int = 24) -> torch.Tensor:
    return torch.randn(n, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def residual(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    model = Residual()
    mask = torch.rand(5, 128, generator=torch.Generator().manual_seed(0)) < 0.2
    register_mask(model.head, mask)
    for _ in range(5):
        model(images())
    return model.eval()


def saved(snn: ts.SpikingNetwork, folder: Path) -> ts.SpikingNetwork:
    ts.save(snn, folder)
    return ts.load(folder)


def require_equal(one: ts.SpikingNetwork, two: ts.SpikingNetwork, x: torch.Tensor) -> None:
    """Logits at all t bit by bit, accuracy, energy and every count, and the same of a copy."""
    assert torch.equal(one(x, 8), two(x, 8))
    assert torch.equal(one.analog(x[:3]), two.analog(x[:3]))
    assert one.report == two.report
    assert list(one.sites) == list(two.sites)
    batch = [(x, torch.arange(len(x)) % 5)]
    counted = ts.evaluate(one, batch, timesteps=4)
    assert ts.evaluate(two, batch, timesteps=4) == counted
    assert ts.evaluate(copy.deepcopy(two), batch, timesteps=4) == counted


@pytest.fixture(scope="module")
def networks() -> tuple[ts.SpikingNetwork, ts.SpikingNetwork]:
    one, two = (ts.convert(residual(seed), calibration=[images()]) for seed in (0, 1))
    return one, two


def test_a_loaded_network_is_the_saved_one_at_any_remove(networks, tmp_path: Path) -> None:
    again = saved(networks[0], tmp_path / "first")
    require_equal(networks[0], again, images())
    require_equal(networks[0], saved(again, tmp_path / "second"), images())
    assert not any(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.slow
def test_an_attention_network_keeps_its_products_and_its_tied_weight(tmp_path: Path) -> None:
    torch.manual_seed(0)
    snn = ts.convert(Attention(), calibration=[images()])
    again = saved(snn, tmp_path)
    require_equal(snn, again, images())
    names = {name for name in again.ann.state_dict() if name.endswith("weight")}
    assert names == {name for name in snn.ann.state_dict() if name.endswith("weight")}


def test_names_and_masks_survive(networks, tmp_path: Path) -> None:
    snn = networks[0]
    again = saved(snn, tmp_path)
    assert again.ann.get_buffer("head.weight_mask").dtype == torch.bool
    assert torch.equal(again.ann.get_parameter("head.weight"), snn.ann.get_parameter("head.weight"))
    files = sorted(path.suffix for path in tmp_path.iterdir())
    assert files == [".json", ".safetensors"]


def test_networks_trained_with_qcfs_keep_their_activations(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), QCFS(4, theta_init=2.0), nn.Flatten(), nn.Linear(216, 10),
        QCFS(4, theta_init=1.0, channels=10, positive_map="sqrt"), nn.Linear(10, 5),
    )  # fmt: skip
    snn = ts.convert(model, "cs-qcfs", calibration=[images()])
    require_equal(snn, saved(snn, tmp_path), images())
    torch.testing.assert_close(ts.load(tmp_path).analog(images()), model(images()))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["srp", "offset-spike", "slip-relu"])
def test_relatives_of_qcfs_keep_their_sites_and_settings(method: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    kind = SlipReLU if method == "slip-relu" else QCFS
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10), kind(4), nn.Linear(10, 5))
    options = {} if method == "slip-relu" else {"presimulation": 3}
    snn = ts.convert(model, method, calibration=[images()], **options)
    again = saved(snn, tmp_path)
    assert type(again) is type(snn)
    require_equal(snn, again, images())


@pytest.mark.slow
def test_weights_in_channels_last_keep_their_layout(tmp_path: Path) -> None:
    model = residual().to(memory_format=torch.channels_last)
    snn = ts.convert(model, calibration=[images()], fold=False)
    again = saved(snn, tmp_path)
    assert again.ann.get_parameter("stem.weight").is_contiguous(memory_format=torch.channels_last)
    require_equal(snn, again, images())


@given(
    coding=st.sampled_from(list(CODINGS.values())),
    neuron=st.one_of(
        st.builds(MultiThreshold, st.integers(1, 16), gated=st.booleans()),
        st.builds(Identity, gated=st.booleans()),
        st.sampled_from([IntegrateAndFire(), SignedIntegrateAndFire()]),
    ),
    theta=st.sampled_from([(), (1,), (1, 8, 1, 1), (1, 8, 8, 8)]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
)
@settings(deadline=None, derandomize=True, max_examples=10)
def test_every_setting_survives(
    networks, tmp_path_factory, coding: Coding, neuron: Neuron, theta: tuple[int, ...], dtype
) -> None:
    snn = copy.deepcopy(networks[0]).to(dtype)
    site = next(iter(snn.sites.values()))
    site.neuron, site.coding = neuron, coding
    site.threshold = torch.rand(theta, generator=torch.Generator().manual_seed(0)).to(dtype) + 0.5
    again = saved(snn, tmp_path_factory.mktemp("network"))
    x = images(4).to(dtype)
    assert torch.equal(snn(x, 4), again(x, 4))
    other = again.sites[site.name]
    assert (other.neuron, other.coding, other.gated) == (neuron, coding, site.gated)


def test_saving_again_replaces_the_network_and_leaves_other_files(networks, tmp_path: Path) -> None:
    first, second = networks
    (tmp_path / "evaluation.json").write_text("{}")
    ts.save(first, tmp_path)
    ts.save(second, tmp_path)
    assert torch.equal(ts.load(tmp_path)(images(), 2), second(images(), 2))
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert (tmp_path / "evaluation.json").exists()


def test_a_writer_that_stops_half_way_leaves_the_old_network(
    networks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = networks
    ts.save(first, tmp_path)
    replace, calls = Path.replace, []

    def full_disk(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == 2:
            raise OSError("no space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(CheckpointError, match=r"cannot be written here .*no space left"):
        ts.save(second, tmp_path)
    assert torch.equal(ts.load(tmp_path)(images(), 2), first(images(), 2))


@pytest.fixture(scope="module")
def network_folder(networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    ts.save(networks[0], folder)
    return folder


def copied(folder: Path, target: Path) -> Path:
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def test_a_missing_or_cut_file_is_one_clear_error(network_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no saved network.*topospike\.save"):
        ts.load(tmp_path / "nowhere")
    for path in network_folder.iterdir():
        whole = path.read_bytes()
        for size in (0, 10, len(whole) // 2, len(whole) - 2):
            folder = copied(network_folder, tmp_path)
            (folder / path.name).write_bytes(whole[:size])
            with pytest.raises(CheckpointError, match=r"not a whole saved network|json is damaged"):
                ts.load(folder)
    copied(network_folder, tmp_path)
    next(tmp_path.glob("*.safetensors")).unlink()
    with pytest.raises(CheckpointError, match="holds no saved network"):
        ts.load(tmp_path)


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), which=st.booleans())
@settings(deadline=None, derandomize=True, max_examples=15)
def test_a_flipped_bit_never_goes_unnoticed(
    network_folder: Path, tmp_path_factory, place: float, bit: int, which: bool
) -> None:
    folder = copied(network_folder, tmp_path_factory.mktemp("flipped"))
    before = ts.load(network_folder)
    path = folder / FILE if which else next(folder.glob("*.safetensors"))
    content = bytearray(path.read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    path.write_bytes(content)
    try:
        after = ts.load(folder)
    except CheckpointError:
        return
    # white space of the JSON file may change without changing what it says
    assert torch.equal(after(images(2), 2), before(images(2), 2))


def rewritten(folder: Path, change) -> None:
    """Change a description and give it a digest that fits, as an attacker would."""
    description = json.loads((folder / FILE).read_text())
    del description["sha256"]
    change(description)
    description["sha256"] = digest_of_plain(description)
    (folder / FILE).write_text(json.dumps(description))


def first(description: dict, op: str) -> dict:
    return next(node for node in description["graph"] if node["op"] == op)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: first(d, "call_function").update(target="aten.from_file.default"), "functional"),
        (lambda d: first(d, "call_function").update(target="aten.relu_.default"), "functional"),
        (lambda d: first(d, "call_function").update(target="aten.no_such.default"), "no operat"),
        (lambda d: first(d, "call_function").update(target="os.system"), "not an operation"),
        (lambda d: first(d, "call_function").update(target="prims.add.d"), "not an operation"),
        (lambda d: first(d, "get_attr").update(target='a"); import os; ("'), "not a dotted name"),
        (lambda d: first(d, "placeholder").update(target="x): import os #"), "not a dotted name"),
        (lambda d: first(d, "call_function").update(name="x; import os"), "not one of a captured"),
        (lambda d: first(d, "call_function").update(op="call_method"), "not one of a captured"),
        (lambda d: first(d, "call_function").update(kwargs={"a=1, b": 2}), "not a name"),
        (lambda d: first(d, "call_function").update(args=[{"pickle": "x"}]), "unknown kind"),
        (lambda d: first(d, "call_function").update(args=[{"node": "none"}]), "KeyError"),
        (lambda d: first(d, "call_function").update(args=[{"dtype": "save"}]), "not a dtype"),
        (lambda d: next(iter(d["sites"].values()))["neuron"].update(kind="Path"), "unknown neuron"),
        (lambda d: next(iter(d["sites"].values())).update(coding="loud"), "unknown coding"),
        (lambda d: d["report"].pop("method"), "missing required field"),
        (lambda d: d.pop("graph"), "KeyError"),
        (lambda d: d["tensors"].update(file="/etc/hostname"), "holds no saved network"),
        (lambda d: d.update(format="something else"), "does not say"),
    ],
)  # fmt: skip
def test_what_a_file_may_name_is_closed(
    network_folder: Path, tmp_path: Path, change, message: str
) -> None:
    rewritten(copied(network_folder, tmp_path), change)
    with pytest.raises(CheckpointError, match=message):
        ts.load(tmp_path)


def test_a_newer_format_is_named(network_folder: Path, tmp_path: Path) -> None:
    rewritten(copied(network_folder, tmp_path), lambda d: d.update(version=3))
    with pytest.raises(CheckpointError, match=r"format version 3 .*reads version 2"):
        ts.load(tmp_path)


@torch.library.custom_op("topospike_test::twice", mutates_args=())
def twice(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


@twice.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Foreign(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(192, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(twice(torch.relu(x.flatten(1))))


class Loud(Identity):
    """A neuron of one's own."""


def test_what_cannot_be_saved_is_named(networks, tmp_path: Path) -> None:
    snn = ts.convert(Foreign(), calibration=[images()])
    with pytest.raises(ConversionError, match=r"runs topospike_test\.twice.*only PyTorch's own"):
        ts.save(snn, tmp_path)
    snn = copy.deepcopy(networks[0])
    next(iter(snn.sites.values())).neuron = Loud()
    with pytest.raises(ConversionError, match=r"its neurons \(Loud\) are not registered"):
        ts.save(snn, tmp_path)
    assert not list(tmp_path.iterdir())


def test_every_operation_found_by_name_is_functional() -> None:
    for name in ("aten.conv2d.default", "aten.add.Tensor", "aten.slice.Tensor", "operator.getitem"):
        assert callable(function_named(name))
    for name in ("aten.copy_.default", "aten.relu", "relu", "aten..default", "builtins.eval"):
        with pytest.raises(ValueError, match=r"operation"):
            function_named(name)
