import dataclasses
import warnings

import pytest
import torch
from torch import nn

from topospike.errors import ConfigError, NonFiniteError, TopologyViolation
from topospike.evolve import sparsify
from topospike.recipe import TrainSettings
from topospike.topology import check_masks, register_mask
from topospike.train import fit, on_links
from topospike.train.compact import check_execution

SETTINGS = TrainSettings(epochs=5, learning_rate=0.05, label_smoothing=0.1)
SLOW = ("mest", "chtss", "cht", "granet", "gmp")
COMPACT = dataclasses.replace(SETTINGS, execution="compact")
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01, nesterov=True),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.05, initial_accumulator_value=0.1),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.5),
}


def mlp(dtype=torch.float64, dropout=0.0):
    with torch.random.fork_rng():
        torch.manual_seed(4)
        return nn.Sequential(
            nn.Flatten(),
            nn.Linear(64, 96),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(96, 80),
            nn.ReLU(),
            nn.Linear(80, 10),
        ).to(dtype)


def sparse_mlp(rule="chts", sparsity=0.93, **options):
    model = mlp(**options)
    return model, sparsify(model, rule, sparsity=sparsity, epochs=SETTINGS.epochs, seed=7)


def images(batch=16, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, 1, 8, 8, generator=generator, dtype=dtype)
    return x, torch.arange(batch) % 10


def take_steps(model, optimizer, count):
    x, y = images()
    for _ in range(count):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()


def digits(toy, dtype=torch.float64, **options):
    data = toy.digits(**options)
    for split in (data.train, data.validation):
        split.x = split.x.to(dtype)
    return data


@pytest.mark.parametrize("kind", sorted(OPTIMIZERS))
def test_weights_and_slots_after_some_steps_are_those_of_masked_training(kind):
    results = []
    for compact in (False, True):
        model, sparsifier = sparse_mlp()
        optimizer = OPTIMIZERS[kind](model.parameters())
        sparsifier.attach(optimizer)
        # The first steps make slots, so that they are gathered; the others are made compact.
        take_steps(model, optimizer, 2 if kind == "SGD" else 0)
        if compact:
            with on_links(model, optimizer):
                take_steps(model, optimizer, 4)
        else:
            take_steps(model, optimizer, 4)
        take_steps(model, optimizer, 1)
        results.append((model, optimizer))
    (model, optimizer), (model_2, optimizer_2) = results
    for name, value in model.state_dict().items():
        torch.testing.assert_close(model_2.state_dict()[name], value, rtol=1e-9, atol=1e-11)
    state, state_2 = optimizer.state_dict(), optimizer_2.state_dict()
    assert state["param_groups"] == state_2["param_groups"]
    assert state["state"].keys() == state_2["state"].keys()
    for index, slots in state["state"].items():
        assert slots.keys() == state_2["state"][index].keys()
        for name, slot in slots.items():
            torch.testing.assert_close(
                state_2["state"][index][name], slot, rtol=1e-9, atol=1e-11, msg=name
            )
    check_masks(model_2)


def test_inside_the_block_the_optimizer_holds_links_and_afterwards_weights():
    model, sparsifier = sparse_mlp()
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    before = [id(p) for p in optimizer.param_groups[0]["params"]]
    with on_links(model, optimizer) as layers:
        assert layers.names == ("1", "4")
        shapes = [tuple(p.shape) for p in optimizer.param_groups[0]["params"]]
        links = [int(mask.sum()) for mask in sparsifier.masks.values()]
        assert shapes == [(links[0],), (96,), (links[1],), (80,), (10, 80), (10,)]
        layers.leave()
        assert [id(p) for p in optimizer.param_groups[0]["params"]] == before
    assert [id(p) for p in optimizer.param_groups[0]["params"]] == before
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_the_block_is_left_after_an_error_too():
    model, _ = sparse_mlp()
    optimizer = OPTIMIZERS["SGD"](model.parameters())

    def interrupted():
        with on_links(model, optimizer):
            take_steps(model, optimizer, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert set(optimizer.state) == set(model.parameters())
    take_steps(model, optimizer, 1)


def test_only_sparse_linear_layers_of_their_own_run_on_links():
    class Doubled(nn.Linear):
        def forward(self, input):
            return 2 * super().forward(input)

    def sparse(layer, links):
        mask = torch.zeros(layer.weight.numel(), dtype=torch.bool)
        mask[:links] = True
        register_mask(layer, mask.view(layer.weight.shape))
        return layer

    shared = sparse(nn.Linear(10, 10), 5)
    tied = nn.Linear(10, 10)
    tied.weight = shared.weight
    frozen = sparse(nn.Linear(10, 10), 5)
    frozen.weight.requires_grad_(False)
    model = nn.ModuleDict(
        {
            "sparse": sparse(nn.Linear(10, 10), 10),
            "too full": sparse(nn.Linear(10, 10), 11),
            "empty": sparse(nn.Linear(10, 10), 0),
            "dense": nn.Linear(10, 10),
            "subclass": sparse(Doubled(10, 10), 5),
            "shared": shared,
            "tied": tied,
            "in bfloat16": sparse(nn.Linear(10, 10).bfloat16(), 5),
            "conv": sparse(nn.Conv1d(10, 10, 1), 5),
            "frozen": frozen,
        }
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with on_links(model, optimizer) as layers:
        assert layers.names == ("sparse",)
    with on_links(model, optimizer, density_bound=1.0) as layers:
        assert layers.names == ("sparse", "too full")


@pytest.mark.parametrize(
    "rule", ["chts", "set", "rigl", *(pytest.param(r, marks=pytest.mark.slow) for r in SLOW)]
)
def test_through_topology_updates_masks_are_those_of_masked_training(toy, rule):
    settings = dataclasses.replace(SETTINGS, gradient_clip=1.0, ema_decay=0.9)
    runs = {}
    for execution in ("masked", "compact"):
        model, sparsifier = sparse_mlp(rule)
        fit(
            model,
            digits(toy),
            dataclasses.replace(settings, execution=execution),
            folder=None,
            seed=1,
            sparsifier=sparsifier,
        )
        runs[execution] = (model, sparsifier)
    (model, masked), (model_2, compact) = runs["masked"], runs["compact"]
    assert compact.update_index == masked.update_index >= 3
    for name, mask in masked.masks.items():
        assert torch.equal(compact.masks[name], mask), name
    for name, value in model.state_dict().items():
        torch.testing.assert_close(model_2.state_dict()[name], value, rtol=1e-8, atol=1e-10)


def test_the_record_names_the_compact_layers(toy, tmp_path, read_metrics):
    model, sparsifier = sparse_mlp("chtss")
    fit(model, digits(toy), COMPACT, folder=tmp_path, seed=1, sparsifier=sparsifier)
    names = [line["compact_layers"] for line in read_metrics(tmp_path) if line["kind"] == "epoch"]
    # CHTss begins at half the links: the layers are still too full then.
    assert names[0] == []
    assert names[-1] == ["1", "4"]


@pytest.mark.parametrize("rule", ["rigl", pytest.param("chts", marks=pytest.mark.slow)])
def test_a_resumed_run_is_bit_identical(toy, tmp_path, read_metrics, rule):
    class Interrupted(toy.Batches):
        def __iter__(self):
            for step, batch in enumerate(super().__iter__()):
                if self.epoch == 2 and step == 3:
                    raise KeyboardInterrupt
                yield batch

    def train(folder, data):
        model, sparsifier = sparse_mlp(rule, dtype=torch.float32, dropout=0.2)
        fit(model, data, COMPACT, folder=folder, seed=1, sparsifier=sparsifier)
        return model, sparsifier

    whole, controller = train(tmp_path / "whole", digits(toy, torch.float32))
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "cut", digits(toy, torch.float32, kind=Interrupted))
    resumed, controller_2 = train(tmp_path / "cut", digits(toy, torch.float32))
    for name, value in whole.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], value), name
    assert read_metrics(tmp_path / "whole") == read_metrics(tmp_path / "cut")
    assert controller.freeze().digest == controller_2.freeze().digest


def test_a_loss_that_is_not_finite_names_the_layer_and_leaves_usual_weights(toy):
    model, sparsifier = sparse_mlp("static")
    with torch.no_grad():
        rows, columns = sparsifier.masks["4"].nonzero(as_tuple=True)
        model[4].weight[rows[0], columns[0]] = float("nan")
    place = r"first appear in layer '4' \(Linear.*its weight holds 1"
    with pytest.raises(NonFiniteError, match=place):
        fit(model, digits(toy), COMPACT, folder=None, seed=1, sparsifier=sparsifier)
    assert "forward" not in model[4].__dict__


def test_warnings_are_errors_and_there_are_none(toy):
    model, sparsifier = sparse_mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit(model, digits(toy), COMPACT, folder=None, seed=1, sparsifier=sparsifier)


def test_the_dense_twin_is_trained_as_always(toy):
    results = []
    for settings in (SETTINGS, COMPACT):
        model = mlp()
        fit(model, digits(toy), settings, folder=None, seed=1)
        results.append(model.state_dict())
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])


def test_a_weight_used_outside_of_its_layer_is_refused(toy):
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 64)
            self.classifier = nn.Linear(64, 10)

        def forward(self, x):
            x = self.layer(x.flatten(1)).relu()
            return self.classifier(nn.functional.linear(x, self.layer.weight.t()))

    model = Tied()
    sparsifier = sparsify(model, "set", sparsity=0.95, epochs=5, percolation=False)
    with pytest.raises(ConfigError, match=r"layer\.weight is used outside of its layer"):
        fit(
            model,
            digits(toy, torch.float32),
            COMPACT,
            folder=None,
            seed=1,
            sparsifier=sparsifier,
        )


def test_what_can_never_run_on_links_is_refused_with_the_reason():
    model, _ = sparse_mlp()
    with pytest.raises(ConfigError, match=r"run of 2 processes.*execution='masked'"):
        check_execution("compact", model, processes=2)
    check_execution("masked", model, processes=2)
    with pytest.raises(ConfigError, match=r"unknown execution 'compct'.*Did you mean 'compact'"):
        check_execution("compct", model, processes=1)
    conv = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    sparsify(conv, "set", sparsity={"conv": 0.5}, epochs=2)
    with pytest.raises(ConfigError, match=r"masked layers \(0\)"):
        check_execution("compact", conv, processes=1)
    model.compile(backend="eager")
    with pytest.raises(ConfigError, match="Sequential is compiled"):
        check_execution("compact", model, processes=1)


def test_optimizers_that_mix_weights_are_refused():
    model, _ = sparse_mlp()
    optimizer = torch.optim.Adafactor(model.parameters())
    wanted = r"does not work with Adafactor.*SGD"
    with pytest.raises(ConfigError, match=wanted), on_links(model, optimizer):
        pass
    assert not optimizer.state


def test_weights_off_the_mask_are_refused():
    model, _ = sparse_mlp()
    with torch.no_grad():
        model[1].weight.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TopologyViolation, match=r"1\.weight"), on_links(model, optimizer):
        pass


def test_gradients_accumulate_over_batches(toy):
    results = []
    for execution in ("masked", "compact"):
        model, sparsifier = sparse_mlp("static")
        settings = dataclasses.replace(SETTINGS, accumulate=3, execution=execution)
        fit(model, digits(toy), settings, folder=None, seed=1, sparsifier=sparsifier)
        results.append(model.state_dict())
    for name, value in results[0].items():
        torch.testing.assert_close(results[1][name], value, rtol=1e-9, atol=1e-11)
