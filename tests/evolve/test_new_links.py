import pytest
import torch
from torch import nn

from topospike.evolve import Sparsifier, sparsify


def train(model: nn.Module, sparsifier: Sparsifier, epochs: range) -> torch.optim.SGD:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    sparsifier.attach(optimizer)
    generator = torch.Generator().manual_seed(epochs.start)
    for epoch in epochs:
        x = torch.randn(16, 12, generator=generator)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
        sparsifier.update_topology(epoch)
    return optimizer


def sparse_mlp(**options: bool | str) -> tuple[nn.Module, Sparsifier]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 20), nn.Linear(20, 3))
    return model, sparsify(
        model, "set", sparsity=0.5, epochs=8, zeta_schedule="constant", stop_fraction=1.0,
        percolation=False, **options,
    )  # fmt: skip


def test_links_grown_again_restart_from_their_last_weight() -> None:
    model, sparsifier = sparse_mlp(history=True)
    train(model, sparsifier, range(2))
    before = model[2].weight.detach().clone()
    mask = model[2].weight_mask.clone()
    last = sparsifier.history["2"].clone()
    sparsifier.update_topology(2)
    grown = model[2].weight_mask & (~mask | (model[2].weight != before))
    expected = torch.where(mask, before, last)
    assert grown.any()
    assert torch.equal(model[2].weight[grown], expected[grown])


def test_without_history_new_links_start_at_zero_and_checkpoints_do_not_grow() -> None:
    model, sparsifier = sparse_mlp()
    train(model, sparsifier, range(2))
    mask = model[2].weight_mask.clone()
    sparsifier.update_topology(2)
    assert not model[2].weight[model[2].weight_mask & ~mask].any()
    assert not sparsifier.state_dict()["history"]


def test_new_links_may_start_from_a_draw_for_the_density_of_the_moment() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(300, 400), nn.ReLU(), nn.Linear(400, 10))
    sparsifier = sparsify(
        model, "granet", sparsity=0.9, initial_sparsity=0.5, epochs=4, zeta=0.5,
        zeta_schedule="constant", percolation=False, new_links="swi",
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    sparsifier.attach(optimizer)
    model(torch.randn(16, 300)).square().mean().backward()
    optimizer.step()
    before, weight = model[0].weight_mask.clone(), model[0].weight.detach().clone()
    sparsifier.update_topology(0)
    mask = model[0].weight_mask
    grown = mask & (~before | (model[0].weight != weight))
    density = mask.double().mean().item()
    assert 0.1 < density < 0.5
    assert grown.sum() > 5000
    deviation = (2 / (density * 300)) ** 0.5
    assert abs(model[0].weight[grown].std().item() / deviation - 1) < 0.05
    assert abs(model[0].weight[grown].mean().item()) < deviation / 20
    assert not model[0].weight[~mask].any()
    assert not optimizer.state[model[0].weight]["momentum_buffer"][grown].any()


def test_a_link_grown_again_has_its_last_weight_and_others_are_drawn() -> None:
    model, sparsifier = sparse_mlp(history=True, new_links="swi")
    train(model, sparsifier, range(1))
    mask, seen = model[2].weight_mask.clone(), sparsifier.history["2"].clone()
    seen = torch.where(mask, model[2].weight.detach(), seen)
    sparsifier.update_topology(1)
    grown = model[2].weight_mask & ~mask
    again, fresh = grown & (seen != 0), grown & (seen == 0)
    assert again.any()
    assert fresh.any()
    assert torch.equal(model[2].weight[again], seen[again])
    assert model[2].weight[fresh].all()


@pytest.mark.parametrize("options", [{"history": True}, {"new_links": "swi"}])
def test_starts_of_new_links_are_resumed(options: dict[str, bool | str]) -> None:
    model, sparsifier = sparse_mlp(**options)
    train(model, sparsifier, range(3))
    state = (model.state_dict(), sparsifier.state_dict())
    again, other = sparse_mlp(**options)
    again.load_state_dict(state[0])
    other.load_state_dict(state[1])
    for one in (sparsifier, other):
        one.update_topology(3)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True)
    )
