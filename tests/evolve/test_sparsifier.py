import copy
import dataclasses
import io
import warnings

import pytest
import torch
from tests.evolve.conftest import OPTIMIZERS
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from topospike.errors import ConfigError, NonFiniteError, TopologyViolation
from topospike.evolve import RULES, Rule, sparsify
from topospike.recipe import SparsitySettings
from topospike.topology import Topology, check_masks, get_mask

EPOCHS = 8
EXAMPLE = torch.zeros(2, 1, 4, 4)


@pytest.mark.slow
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weights_and_slots_stay_exactly_zero_under_any_optimizer(started, train_epoch, name):
    model, optimizer, sparsifier = started(optimizer=name)
    shaped_slots = 0
    for epoch in range(4):
        train_epoch(model, optimizer, epoch=epoch, steps=5)
        for moment in ("after steps", "after update"):
            for layer, mask in sparsifier.masks.items():
                weight = model.get_submodule(layer).weight
                assert not weight.detach()[~mask].any(), (layer, moment)
                for key, slot in optimizer.state[weight].items():
                    if isinstance(slot, torch.Tensor) and slot.shape == weight.shape:
                        shaped_slots += 1
                        # Adamax itself lifts its infinity norm to eps, everywhere.
                        limit = 1e-8 if key == "exp_inf" else 0.0
                        assert (slot[~mask].abs() <= limit).all(), (layer, moment, key)
            sparsifier.update_topology(epoch)
    assert shaped_slots > 0


def test_the_forward_pass_has_no_extra_operation(small_network):
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))

    class Operations(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            seen.append(function.name())
            return function(*args, **(kwargs or {}))

    def operations(model):
        seen.clear()
        with Operations():
            model(x)
        return list(seen)

    seen = []
    dense = small_network()
    sparse = small_network()
    sparsify(sparse, sparsity=0.5, epochs=4)
    assert operations(sparse) == operations(dense) != []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_is_compiled_once_across_updates(small_network, train_epoch):
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    counter = CompileCounter()
    model = small_network()
    sparsifier = sparsify(model, sparsity=0.5, epochs=EPOCHS)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sparsifier.attach(optimizer)
    compiled = torch.compile(model, backend=counter)
    for epoch in range(4):
        train_epoch(compiled, optimizer, epoch=epoch)
        assert sparsifier.update_topology(epoch).layers["9"].grown > 0
    assert counter.frame_count == 1
    assert sparsifier.relations.found == [("0", "3", "7", "9")]


def test_freezing_keeps_the_links_under_further_training(started, train_epoch):
    model, optimizer, sparsifier = started()
    train_epoch(model, optimizer)
    sparsifier.update_topology(0)
    topology = sparsifier.freeze()
    assert isinstance(topology, Topology)
    assert not any(sparsifier.is_update_epoch(epoch) for epoch in range(EPOCHS))
    with pytest.raises(TopologyViolation, match="frozen"):
        sparsifier.update_topology(1)
    train_epoch(model, optimizer, epoch=1)
    topology.verify(model)
    assert topology.provenance["rule"] == "chts"
    assert topology.provenance["updates"] == 1
    assert not model._forward_pre_hooks


def test_detaching_ends_the_masking(started, train_epoch):
    model, optimizer, sparsifier = started()
    sparsifier.detach()
    train_epoch(model, optimizer)
    with pytest.raises(TopologyViolation):
        check_masks(model)


def test_a_second_optimizer_replaces_the_first(started, train_epoch):
    model, first, sparsifier = started()
    second = OPTIMIZERS["adamw"](model.parameters())
    sparsifier.attach(second)
    assert not first._optimizer_step_pre_hooks
    train_epoch(model, second)
    check_masks(model)


def test_an_optimizer_of_another_model_is_refused(started, small_network):
    _, _, sparsifier = started()
    with pytest.raises(ConfigError, match=r"0.weight is not a parameter of this SGD"):
        sparsifier.attach(torch.optim.SGD(small_network().parameters(), lr=0.1))


def test_a_learning_rate_scheduler_does_not_lose_the_hook(started, train_epoch):
    model, optimizer, _ = started()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    train_epoch(model, optimizer)
    scheduler.step()
    check_masks(model)


def test_gradients_of_a_closure_are_masked(started):
    model, optimizer, _ = started()

    def closure():
        optimizer.zero_grad()
        loss = model(torch.ones(2, 1, 4, 4)).square().sum()
        loss.backward()
        return loss

    assert optimizer.step(closure) > 0
    optimizer.step(closure=closure)
    check_masks(model)


def test_masks_loaded_into_the_model_reach_the_gradients(started, train_epoch):
    model, optimizer, sparsifier = started()
    train_epoch(model, optimizer)
    other, _, _ = started(seed=5)
    for assign in (False, True):
        model.load_state_dict(copy.deepcopy(other.state_dict()), assign=assign)
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        sparsifier.attach(optimizer)
        train_epoch(model, optimizer)
        assert torch.equal(get_mask(model[7]), get_mask(other[7]))
        check_masks(model)


def test_an_averaged_model_is_projected(started, train_epoch):
    model, optimizer, sparsifier = started()
    average = torch.optim.swa_utils.AveragedModel(model, use_buffers=False)
    for epoch in range(2):
        train_epoch(model, optimizer, epoch=epoch)
        average.update_parameters(model)
        sparsifier.update_topology(epoch)
    average.update_parameters(model)
    with pytest.raises(TopologyViolation):
        check_masks(average.module)
    sparsifier.project(average)
    sparsifier.freeze().verify(average.module)


def test_projecting_onto_a_dense_model_gives_it_masks(started, small_network):
    _, _, sparsifier = started()
    dense = small_network()
    sparsifier.project(dense)
    sparsifier.freeze().verify(dense)


def test_copying_and_saving_a_model_under_evolution_works(small_network):
    model = small_network()
    sparsify(model, sparsity=0.5, epochs=4)
    twin = copy.deepcopy(model)
    assert torch.equal(twin(EXAMPLE), model(EXAMPLE))
    torch.save(model, io.BytesIO())


def test_nan_weights_stop_the_update_and_name_the_layer(started):
    model, _, sparsifier = started(percolation=False)
    with torch.no_grad():
        model[7].weight[0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match="the weight of layer '7'"):
        sparsifier.update_topology(0)


@pytest.mark.parametrize("rule", ["rigl", "mest", "granet"])
def test_gradient_rules_without_a_step_say_what_to_do(started, rule):
    _, _, sparsifier = started(rule, percolation=False)
    with pytest.raises(ConfigError, match=r"Call attach\(optimizer\) and train"):
        sparsifier.update_topology(0)


def test_percolation_without_any_input_warns_once(small_network):
    sparsifier = sparsify(small_network(), sparsity=0.6, epochs=EPOCHS)
    with pytest.warns(UserWarning, match="percolation is off for this run: the model was never"):
        sparsifier.update_topology(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sparsifier.update_topology(1)


def test_percolation_kills_a_neuron_without_inputs_and_keeps_the_budget():
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    sparsifier = sparsify(
        model, "chts", sparsity=0.5, epochs=EPOCHS, example_input=torch.zeros(2, 6), zeta=0.0
    )
    first, second = get_mask(model[0]), get_mask(model[2])
    first.fill_(True)[2] = False
    second.fill_(False)[:, :3] = True
    for layer in ("0", "2"):
        module = model.get_submodule(layer)
        module.weight.data.masked_fill_(~get_mask(module), 0)
        links = int(get_mask(module).sum())
        plan = dataclasses.replace(sparsifier.layers[layer], initial_links=links, links=links)
        sparsifier.layers[layer] = plan
    changes = sparsifier.update_topology(0).layers
    # Neuron 2 has no input (4 links out of it go), neurons 3 and 4 no output (6 into each).
    assert (changes["0"].percolated, changes["2"].percolated) == (12, 4)
    assert all(c.grown == c.percolated and c.shortfall == 0 for c in changes.values())


def test_early_stop_ends_the_evolution_when_all_layers_are_flagged(started, train_epoch):
    model, optimizer, sparsifier = started("cht", early_stop_overlap=0.01)
    train_epoch(model, optimizer)
    sparsifier.stopped = dict.fromkeys(sparsifier.layers, True)
    assert not sparsifier.is_update_epoch(0)
    sparsifier.stopped["0"] = False
    assert sparsifier.is_update_epoch(0)
    update = sparsifier.update_topology(0)
    assert update.layers["9"].removed > 0  # flagged layers go on meanwhile
    assert sparsifier.stopped["0"] == (update.layers["0"].overlap > 0.01)


@pytest.mark.parametrize("rule", sorted(name for name in RULES if RULES[name].decay))
def test_early_stop_does_not_stop_falling_density(started, train_epoch, rule):
    model, optimizer, sparsifier = started(rule, early_stop="all", early_stop_overlap=0.01)
    for epoch in range(EPOCHS):
        train_epoch(model, optimizer, epoch=epoch)
        sparsifier.update_topology(epoch)
    links = {name: int(mask.sum()) for name, mask in sparsifier.masks.items()}
    assert links == {name: plan.links for name, plan in sparsifier.layers.items()}
    assert sparsifier.replaces == (rule == "gmp")


def test_the_record_counts_activity(started, train_epoch):
    model, optimizer, sparsifier = started(sparsity={"linear": 0.9})
    rates = []
    for epoch in range(5):
        train_epoch(model, optimizer, epoch=epoch)
        update = sparsifier.update_topology(epoch)
        rates.append(update.itop_rate)
        assert update.epoch == epoch
        assert update.update_index == epoch + 1
        assert 0 < update.anp_hidden <= 1
        assert 0 < update.anp <= 1
        assert update.sparsity == pytest.approx(sparsifier.freeze().sparsity())
        sparsifier.is_frozen = False
    assert rates == sorted(rates)
    assert rates[-1] > 1 - update.sparsity


def test_channels_last_weights_evolve(small_network, train_epoch):
    model = small_network().to(memory_format=torch.channels_last)
    sparsifier = sparsify(model, sparsity=0.6, epochs=EPOCHS, example_input=EXAMPLE)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    sparsifier.attach(optimizer)
    plain = sparsify(small_network(), sparsity=0.6, epochs=EPOCHS)
    assert all(torch.equal(m, plain.masks[name]) for name, m in sparsifier.masks.items())
    train_epoch(model, optimizer)
    sparsifier.update_topology(0)
    check_masks(model)
    assert model[3].weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("module", [nn.Conv1d, nn.Conv3d])
def test_convolutions_of_other_ranks_evolve(module):
    axes = 1 if module is nn.Conv1d else 3
    model = nn.Sequential(
        module(2, 6, 3), nn.ReLU(), module(6, 6, 3, groups=2), nn.Flatten(), nn.Linear(6, 2)
    )
    sparsifier = sparsify(
        model, sparsity=0.6, epochs=EPOCHS, example_input=torch.zeros(2, 2, *[5] * axes)
    )
    update = sparsifier.update_topology(0)
    assert all(c.active_after == c.target and c.grown > 0 for c in update.layers.values())


@pytest.mark.parametrize("rule", ["chts", "chtss", "rigl", "set"])
def test_a_frozen_layer_is_left_alone_with_a_word(started, train_epoch, rule):
    model, optimizer, sparsifier = started(rule)
    model[7].weight.requires_grad_(False)
    model[3].weight.requires_grad_(False)
    train_epoch(model, optimizer)
    before = {n: t.clone() for n, t in model.state_dict().items() if n.startswith(("7.w", "3.w"))}
    with pytest.warns(UserWarning, match="weights of 3, 7 do not require a gradient"):
        update = sparsifier.update_topology(0)
    assert all(torch.equal(model.state_dict()[name], old) for name, old in before.items())
    assert update.layers["7"].removed == update.layers["7"].grown == 0
    assert update.layers["9"].removed > 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sparsifier.update_topology(1)
    sparsifier.attach(OPTIMIZERS["sgd"](p for p in model.parameters() if p.requires_grad))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_compiled_model_means_the_original(small_network):
    model = small_network()
    sparsifier = sparsify(torch.compile(model), sparsity=0.6, epochs=4, example_input=EXAMPLE)
    assert list(sparsifier.layers) == ["0", "3", "7", "9"]
    assert sparsifier.update_topology(0).layers["9"].grown > 0
    assert sparsifier.relations.found == [("0", "3", "7", "9")]
    topology = sparsifier.freeze()
    topology.verify(torch.compile(model))
    assert "9.weight" in topology.names


def train_and_freeze(rule, **options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 2))
        x = torch.randn(8, 40)
    sparsifier = sparsify(model, rule, sparsity=0.9, epochs=4, percolation=False, **options)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparsifier.attach(optimizer)
    for epoch in range(4):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
        sparsifier.update_topology(epoch)
    return sparsifier.freeze()


@pytest.mark.parametrize("rule", ["gmp", "set", "chts", "granet", "rigl", "mest"])
def test_the_removal_criterion_is_used_by_every_rule_that_removes(rule):
    own = train_and_freeze(rule, removal="magnitude")
    assert train_and_freeze(rule, removal="ri") != own
    assert train_and_freeze(rule, removal="magnitude_soft") != own


def test_a_rule_whose_falling_density_reads_gradients_gets_them():
    mine = Rule("mine", decay="cubic", decay_removal="mest")
    assert train_and_freeze(mine).sparsity() == pytest.approx(0.9)


def test_settings_are_the_argument(small_network):
    settings = SparsitySettings("set", linear=0.8, conv=0.4, layers={"9": 0.5}, zeta=0.2)
    one = sparsify(small_network(), settings, epochs=4)
    shares = {"linear": 0.8, "conv": 0.4, "9": 0.5}
    other = sparsify(small_network(), "set", sparsity=shares, zeta=0.2, epochs=4)
    assert one.state_dict()["plan"] == other.state_dict()["plan"]
    assert one.freeze() == other.freeze()
    with pytest.raises(ConfigError, match="whole settings and zeta besides"):
        sparsify(small_network(), settings, epochs=4, zeta=0.1)


def test_a_model_of_several_results_evolves_without_percolation():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.third = (nn.Linear(8, 8) for _ in range(3))

        def forward(self, x):
            hidden = self.second(self.first(x).relu())
            return self.third(hidden), hidden

    sparsifier = sparsify(Two(), "set", sparsity=0.5, epochs=4, example_input=torch.zeros(2, 8))
    assert list(sparsifier.layers) == ["first", "second"]
    with pytest.warns(UserWarning, match="percolation is off for this run: Two returns"):
        assert sparsifier.update_topology(0).layers["first"].grown > 0
