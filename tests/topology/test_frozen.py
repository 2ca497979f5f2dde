import copy
import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.errors import (
    CheckpointError,
    ConfigError,
    MissingDataError,
    ShapeError,
    TopologyViolation,
)
from topospike.topology import Topology, get_mask, initial_mask, register_mask, set_mask

SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


def random_mask(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < 0.4


def sparse_net():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    register_mask(net[0], random_mask((4, 2, 3, 3)))
    register_mask(net[3], random_mask((3, 16), seed=1))
    return net


def topology():
    return Topology.from_model(sparse_net(), provenance={"rule": "chts", "seed": 3})


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "topology.npz"
    topology().save(path)
    return path


def test_freezing_keeps_masks_order_and_provenance():
    net = sparse_net()
    frozen = Topology.from_model(net, provenance={"rule": "chts"})
    assert frozen.names == ("0.weight", "3.weight")
    assert torch.equal(frozen.masks["0.weight"], get_mask(net[0]))
    assert frozen.shapes["3.weight"] == (3, 16)
    assert frozen.provenance == {"rule": "chts"}


def test_a_frozen_topology_does_not_follow_the_model_or_its_readers():
    net = sparse_net()
    frozen = Topology.from_model(net)
    before = frozen.digest
    set_mask(net[0], torch.zeros(4, 2, 3, 3, dtype=torch.bool))
    frozen.masks["3.weight"].fill_(True)
    frozen.provenance["rule"] = "set"
    assert frozen.counts()["0.weight"] == int(random_mask((4, 2, 3, 3)).sum())
    assert frozen.counts()["3.weight"] == int(random_mask((3, 16), seed=1).sum())
    assert frozen.provenance == {}
    assert Topology.from_masks(frozen.masks).digest == before
    with pytest.raises(AttributeError):
        frozen.layers = ()


def test_sparsity_is_weighted_by_links_and_by_layer():
    masks = {
        "a": torch.tensor([[True, False], [False, False]]),
        "b": torch.ones(2, 3, dtype=torch.bool),
    }
    frozen = Topology.from_masks(masks)
    assert frozen.sparsities() == {"a": 0.75, "b": 0.0}
    assert frozen.sparsity() == pytest.approx(0.3)
    assert frozen.counts() == {"a": 1, "b": 6}


@settings(deadline=None, derandomize=True, max_examples=25)
@given(shapes=st.lists(SHAPES, min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_masks_survive_packing_saving_and_loading(shapes, seed, tmp_path_factory):
    masks = {
        f"layer.{i}/ü.weight": random_mask(shape, seed=seed + i) for i, shape in enumerate(shapes)
    }
    frozen = Topology.from_masks(masks, provenance={"seed": seed})
    path = tmp_path_factory.mktemp("topology") / "t.npz"
    frozen.save(path)
    loaded = Topology.load(path)
    assert loaded == frozen
    assert loaded.names == frozen.names
    assert loaded.provenance == {"seed": seed}
    assert all(torch.equal(loaded.masks[name], mask) for name, mask in masks.items())


@settings(deadline=None, derandomize=True, max_examples=25)
@given(order=st.permutations(range(4)), flip=st.integers(0, 59))
def test_the_digest_ignores_order_and_sees_every_single_link(order, flip):
    masks = {f"fc{i}.weight": random_mask((3, 5), seed=i) for i in range(4)}
    frozen = Topology.from_masks(masks)
    shuffled = Topology.from_masks({f"fc{i}.weight": masks[f"fc{i}.weight"] for i in order})
    assert shuffled.digest == frozen.digest
    assert hash(shuffled) == hash(frozen)
    layer, position = divmod(flip, 15)
    changed = {name: mask.clone() for name, mask in masks.items()}
    changed[f"fc{layer}.weight"].view(-1)[position] ^= True
    assert Topology.from_masks(changed) != frozen


def test_the_digest_sees_names_and_shapes():
    mask = random_mask((2, 6))
    digests = {
        Topology.from_masks({"a": mask}).digest,
        Topology.from_masks({"b": mask}).digest,
        Topology.from_masks({"a": mask.reshape(3, 4)}).digest,
        Topology.from_masks({"a": mask[:1], "b": mask[1:]}).digest,
    }
    assert len(digests) == 4


def test_the_digest_is_the_same_on_every_machine():
    # A committed value: a change of format must be deliberate.
    frozen = Topology.from_masks({"fc.weight": torch.eye(3, dtype=torch.bool)})
    assert frozen.digest == DIGEST_OF_EYE


DIGEST_OF_EYE = "5ce21aed90fa72e9c08ac69f017aa90e34855fe4744b227888418a0d0e3fc0b9"


def test_negative_zeros_and_memory_layout_do_not_reach_the_digest():
    net, other = sparse_net(), sparse_net()
    with torch.no_grad():
        net[0].weight.mul_(get_mask(net[0]).float() * -1)
    assert torch.signbit(net[0].weight[~get_mask(net[0])]).any()
    other.to(memory_format=torch.channels_last)
    assert Topology.from_model(net) == Topology.from_model(other)


def test_copies_and_pickles_are_equal():
    frozen = topology()
    assert copy.deepcopy(frozen) == frozen
    assert pickle.loads(pickle.dumps(frozen)) == frozen


def test_the_representation_says_what_it_is():
    assert repr(topology()).startswith("Topology(2 layers, ")


def test_a_frozen_model_verifies_and_so_does_a_converted_one_without_masks():
    net = sparse_net()
    frozen = Topology.from_model(net)
    frozen.verify(net)
    plain = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if "mask" not in k})
    frozen.verify(plain)
    with torch.no_grad():
        plain[3].weight += 1.0
    with pytest.raises(TopologyViolation, match=r"3\.weight: .* off the mask"):
        frozen.verify(plain)


def test_row_and_column_scaling_verifies_and_mixing_neurons_does_not():
    net = sparse_net()
    frozen = Topology.from_model(net)
    with torch.no_grad():
        net[3].weight *= torch.rand(3, 1) * torch.rand(1, 16)
        frozen.verify(net)
        net[3].weight.copy_(torch.rand(3, 3) @ net[3].weight)
    with pytest.raises(TopologyViolation, match=r"3\.weight"):
        frozen.verify(net)


def test_a_changed_link_is_named():
    net = sparse_net()
    frozen = Topology.from_model(net)
    mask = get_mask(net[3]).clone()
    index = tuple(mask.nonzero()[0].tolist())
    mask[index] = False
    set_mask(net[3], mask)
    message = (
        rf"3\.weight: 1 links differ .* index \({index[0]}, {index[1]}\) "
        "with value False in the model and True"
    )
    with pytest.raises(TopologyViolation, match=message):
        frozen.verify(net)


def test_models_of_another_shape_do_not_verify():
    frozen = topology()
    with pytest.raises(TopologyViolation, match=r"3\.weight: missing in the model"):
        frozen.verify(nn.Sequential(sparse_net()[0]))
    wide = sparse_net()
    wide[3] = nn.Linear(16, 4)
    with pytest.raises(TopologyViolation, match=r"3\.weight: of shape \(4, 16\)"):
        frozen.verify(wide)
    half = sparse_net()
    half[3] = nn.Linear(16, 3)
    with pytest.raises(TopologyViolation, match=r"3\.weight: .* no mask here although"):
        frozen.verify(half)
    more = nn.Sequential(*sparse_net(), nn.Linear(3, 3))
    register_mask(more[4], torch.eye(3, dtype=torch.bool))
    with pytest.raises(TopologyViolation, match=r"4\.weight: .* the topology has no such layer"):
        frozen.verify(more)


def test_freezing_a_dense_or_a_broken_model_is_refused():
    with pytest.raises(TopologyViolation, match="no parameter of Linear has a mask"):
        Topology.from_model(nn.Linear(2, 2))
    net = sparse_net()
    with torch.no_grad():
        net[3].weight.fill_(1.0)
    with pytest.raises(TopologyViolation, match=r"3\.weight: .* off the mask"):
        Topology.from_model(net)


def test_a_topology_can_be_given_to_a_fresh_model():
    frozen = topology()
    fresh = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
    frozen.apply_to(fresh)
    frozen.verify(fresh)
    fresh.load_state_dict(sparse_net().state_dict())
    frozen.apply_to(fresh)
    frozen.verify(fresh)


def test_a_topology_that_does_not_fit_changes_nothing():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4))
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ShapeError, match=r"3\.weight has shape \(4, 16\); .* \(3, 16\)"):
        topology().apply_to(net)
    with pytest.raises(ConfigError, match=r"layer '3\.weight' that Sequential lacks"):
        topology().apply_to(net[:2])
    after = net.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_masks_and_provenance_that_cannot_be_frozen_are_refused():
    with pytest.raises(ConfigError, match="no masks were given"):
        Topology.from_masks({})
    with pytest.raises(ConfigError, match=r"fc: mask of dtype torch\.float32"):
        Topology.from_masks({"fc": torch.ones(2, 2)})
    mask = {"fc": torch.ones(2, 2, dtype=torch.bool)}
    for value in (object(), float("nan")):
        with pytest.raises(ConfigError, match="cannot become JSON"):
            Topology.from_masks(mask, provenance={"value": value})


def test_saving_twice_gives_equal_bytes_and_leaves_nothing_beside(tmp_path):
    topology().save(tmp_path / "a.npz")
    topology().save(tmp_path / "b.npz")
    topology().save(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_the_file_costs_a_bit_a_link_or_less(tmp_path):
    mask = initial_mask((512, 512), links=26_214, generator=torch.Generator().manual_seed(0))
    Topology.from_masks({"fc.weight": mask}).save(tmp_path / "t.npz")
    assert (tmp_path / "t.npz").stat().st_size < 512 * 512 / 8


def test_numpy_alone_reads_the_file(saved):
    with np.load(saved, allow_pickle=False) as file:
        assert file["names"].tolist() == ["0.weight", "3.weight"]
        shape = tuple(file["shape.3.weight"])
        bits = np.unpackbits(file["bits.3.weight"], count=int(np.prod(shape))).reshape(shape)
        assert json.loads(str(file["provenance"])) == {"rule": "chts", "seed": 3}
    assert np.array_equal(bits.astype(bool), random_mask((3, 16), seed=1).numpy())


def test_reading_needs_no_model_or_training_code(saved):
    code = (
        "import sys; from topospike.topology import Topology; "
        f"print(Topology.load({str(saved)!r}).digest); "
        "print([m for m in sys.modules if m.startswith('topospike.') and m.split('.')[1] in "
        "('models', 'data', 'train', 'evolve', 'convert', 'snn')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [topology().digest, "[]"]


def test_a_truncated_file_is_refused_at_every_length(saved):
    content = saved.read_bytes()
    for length in range(0, len(content), 97):
        saved.write_bytes(content[:length])
        with pytest.raises(CheckpointError, match="damaged"):
            Topology.load(saved)


def test_a_flipped_byte_is_refused_or_harmless(saved):
    content, reference = saved.read_bytes(), topology()
    refused = 0
    positions = range(0, len(content), 5)
    for position in positions:
        damaged = bytearray(content)
        damaged[position] ^= 0x5A
        saved.write_bytes(bytes(damaged))
        try:
            loaded = Topology.load(saved)
        except CheckpointError:
            refused += 1
        else:
            # Some bytes of a zip archive say nothing, as dates; then the topology is the same.
            assert loaded == reference
            assert loaded.provenance == reference.provenance
    assert refused > len(positions) // 2


def test_a_forged_link_is_found_by_the_digest(saved):
    with np.load(saved, allow_pickle=False) as file:
        entries = {key: file[key] for key in file.files}
    entries["bits.3.weight"] = entries["bits.3.weight"] ^ np.uint8(1 << 7)
    np.savez_compressed(saved, **entries)
    with pytest.raises(CheckpointError, match="do not match the stored digest"):
        Topology.load(saved)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": np.array(2)}, "format 'topospike-topology' version 2; .* version 1 is req"),
        ({"format": np.array("other")}, "format 'other'"),
        ({"shape.3.weight": np.array([3, 99])}, r"shape \(3, 99\) does not fit"),
        ({"shape.3.weight": np.array([0, 16])}, r"shape \(0, 16\); positive sizes"),
        ({"names": np.array(["absent"])}, "no entry 'shape.absent'"),
        ({"shape.3.weight": np.array([3.0, 16.0])}, "Cannot cast"),
        ({"shape.3.weight": np.array([2**40, 2**40])}, "links at most"),
        ({"bits.3.weight": np.zeros(2**20, np.uint8)}, r"1048704 bytes; at most \d+ belong there"),
        ({"names": np.array(["3.weight", "3.weight"])}, "two layers have one name"),
        ({"provenance": np.array("{")}, "truncated"),
        ({"provenance": np.array("[]")}, "Expected `object`, got `array`"),
    ],
)
def test_contents_that_do_not_fit_are_refused(saved, change, message):
    with np.load(saved, allow_pickle=False) as file:
        entries = {key: file[key] for key in file.files}
    np.savez_compressed(saved, **(entries | change))
    with pytest.raises(CheckpointError, match=message):
        Topology.load(saved)


def test_links_beyond_the_end_are_refused(tmp_path):
    path = tmp_path / "t.npz"
    Topology.from_masks({"fc": torch.eye(3, dtype=torch.bool)}).save(path)
    with np.load(path, allow_pickle=False) as file:
        entries = {key: file[key] for key in file.files}
    entries["bits.fc"] = entries["bits.fc"] | np.array([0, 1], dtype=np.uint8)
    np.savez_compressed(path, **entries)
    with pytest.raises(CheckpointError, match="links beyond the end"):
        Topology.load(path)


def test_pickled_objects_are_never_read(saved):
    with np.load(saved, allow_pickle=False) as file:
        entries = {key: file[key] for key in file.files}
    entries["names"] = np.array([{"a": 1}], dtype=object)
    np.savez_compressed(saved, allow_pickle=True, **entries)
    with pytest.raises(CheckpointError, match="holds objects"):
        Topology.load(saved)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(MissingDataError, match="does not exist"):
        Topology.load(tmp_path / "absent.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(CheckpointError, match="damaged"):
        Topology.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(CheckpointError, match="no entry 'format'"):
        Topology.load(tmp_path / "other.npz")
    with pytest.raises(CheckpointError, match="cannot be written here"):
        topology().save(tmp_path / "text.npz" / "t.npz")
