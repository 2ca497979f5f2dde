"""Whatever the optimizer, absent links stay at 0, and rules see the gradient of its last step."""

import pytest
import torch
from torch import nn

from topospike.errors import TopologyViolation
from topospike.evolve import sparsify
from topospike.topology import check_masks, get_mask


class SAM(torch.optim.Optimizer):
    """Sharpness-aware minimisation around a base optimizer, as published implementations do it."""

    def __init__(self, params, base, rho=0.05, **options):
        super().__init__(params, {"rho": rho, **options})
        self.base_optimizer = base(self.param_groups, **options)

    @torch.no_grad()
    def first_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    self.state[p]["old"] = p.clone()
                    p.add_(p.grad, alpha=group["rho"])

    @torch.no_grad()
    def second_step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.copy_(self.state[p]["old"])
        self.base_optimizer.step()

    @torch.no_grad()
    def step(self, closure):
        closure = torch.enable_grad()(closure)
        self.first_step()
        self.zero_grad()
        loss = closure()
        self.second_step()
        return loss


@pytest.fixture
def started():
    def start(rule, make, **options):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = nn.Sequential(
                nn.Linear(12, 16, bias=False), nn.ReLU(), nn.Linear(16, 16, bias=False),
                nn.ReLU(), nn.Linear(16, 4, bias=False),
            )  # fmt: skip
        sparsifier = sparsify(model, rule, sparsity=0.6, epochs=8, percolation=False, **options)
        optimizer = make(model.parameters())
        sparsifier.attach(optimizer)
        return model, optimizer, sparsifier

    return start


def loss_of(model, step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(32, 12, generator=generator)
    return nn.functional.cross_entropy(model(x), torch.arange(32) % 4)


def backward(model, optimizer, step=0):
    optimizer.zero_grad()
    loss = loss_of(model, step)
    loss.backward()
    return loss


@pytest.mark.parametrize(
    ("make", "closes"),
    [
        (lambda p: torch.optim.Muon(p, lr=0.02), False),
        (lambda p: torch.optim.LBFGS(p, lr=0.1), True),
        (lambda p: torch.optim.LBFGS(p, line_search_fn="strong_wolfe"), True),
        (lambda p: SAM(p, torch.optim.SGD, lr=0.1, momentum=0.9), True),
    ],
    ids=["muon", "lbfgs", "lbfgs with line search", "sam"],
)
def test_optimizers_that_mix_entries_or_step_twice_keep_absent_links_at_zero(started, make, closes):
    model, optimizer, sparsifier = started("set", make, zeta_schedule="constant")
    losses = []
    for epoch in range(4):
        for _ in range(3):
            # One fixed batch: a second-order optimizer needs a function that stands still.
            losses.append(float(backward(model, optimizer).detach()))
            _ = optimizer.step(lambda: backward(model, optimizer)) if closes else optimizer.step()
            check_masks(model)
        assert sparsifier.update_topology(epoch).layers["0"].grown > 0
    assert losses[-1] < losses[0]


def test_an_optimizer_that_begins_to_mix_later_is_noticed(started):
    class Late(torch.optim.SGD):
        """Preconditions from its second step on, as SOAP does."""

        steps = 0

        @torch.no_grad()
        def step(self, closure=None):
            super().step(closure)
            self.steps += 1
            if self.steps > 1:
                for p in self.param_groups[0]["params"]:
                    p.sub_(p.grad.mean(1, keepdim=True).expand_as(p), alpha=0.01)

    model, optimizer, _ = started("set", lambda p: Late(p, lr=0.1))
    for step in range(5):
        backward(model, optimizer, step)
        optimizer.step()
        check_masks(model)


def test_entry_wise_optimizers_are_not_masked_after_the_step(started):
    model, optimizer, sparsifier = started("set", lambda p: torch.optim.AdamW(p, lr=0.01))
    for step in range(5):
        backward(model, optimizer, step)
        optimizer.step()
    assert not sparsifier.masker.mixes


def test_a_wrapper_that_steps_by_itself_is_refused_with_the_remedy(started):
    def train(model, optimizer, mask):
        for step in range(3):
            backward(model, optimizer, step)
            mask()
            optimizer.first_step()
            backward(model, optimizer, step)
            mask()
            optimizer.second_step()

    def make(p):
        return SAM(p, torch.optim.SGD, lr=0.1)

    model, optimizer, sparsifier = started("set", make)
    train(model, optimizer, lambda: None)
    with pytest.raises(TopologyViolation, match="attach the base optimizer, and call mask_grad"):
        sparsifier.update_topology(0)
    model, optimizer, sparsifier = started("set", make)
    sparsifier.attach(optimizer.base_optimizer)
    train(model, optimizer, sparsifier.mask_gradients)
    assert sparsifier.update_topology(0).layers["0"].grown > 0
    check_masks(model)


def test_a_skipped_step_leaves_no_gradient_behind(started):
    model, optimizer, sparsifier = started("rigl", lambda p: torch.optim.SGD(p, lr=0.1))
    backward(model, optimizer, 0)
    sparsifier.mask_gradients()  # and the step is skipped
    backward(model, optimizer, 1)
    dense = model[0].weight.grad.clone()
    optimizer.step()
    assert torch.equal(sparsifier.masker.recorded[0], dense)


@pytest.mark.parametrize("masks", [True, False], ids=["masked before", "as it comes"])
@pytest.mark.parametrize("limit", [1e9, 1e-3])
def test_the_recorded_gradient_is_the_one_of_the_step(started, masks, limit):
    model, optimizer, sparsifier = started("rigl", lambda p: torch.optim.SGD(p, lr=0.1))
    backward(model, optimizer)
    dense = model[0].weight.grad.clone()
    if masks:
        sparsifier.mask_gradients()
    norm = nn.utils.clip_grad_norm_(model.parameters(), limit)
    optimizer.step()
    recorded, mask = sparsifier.masker.recorded[0], get_mask(model[0])
    assert torch.equal(recorded[mask], model[0].weight.grad[mask])
    torch.testing.assert_close(recorded, dense * min(1.0, limit / float(norm)))


class Overflowing(nn.Module):
    """Multiplies a loss by infinity in one step, as float16 may."""

    def forward(self, loss, overflows):
        return loss * float("inf") if overflows else loss


@pytest.mark.parametrize("rule", ["rigl", "mest", "granet"])
@pytest.mark.parametrize("masked", ["before unscaling", "after unscaling", "in the step"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_amp_skips_does_not_count(started, rule, masked, fused):
    def run(last_step_overflows):
        model, optimizer, sparsifier = started(
            rule, lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=fused)
        )
        scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        for step in range(4 if last_step_overflows else 3):
            optimizer.zero_grad()
            scaler.scale(Overflowing()(loss_of(model, step), step == 3)).backward()
            if masked == "before unscaling":
                sparsifier.mask_gradients()
            if masked != "in the step":
                scaler.unscale_(optimizer)
            if masked == "after unscaling":
                sparsifier.mask_gradients()
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
        return [*sparsifier.masker.recorded], sparsifier.update_topology(0)

    recorded, update = run(False)
    after_overflow, second = run(True)
    assert all(bool(gradient.isfinite().all()) for gradient in after_overflow)
    for one, other in zip(recorded, after_overflow, strict=True):
        assert torch.equal(one, other)
    assert update == second
    assert float(recorded[0].abs().max()) < 1.0  # not times the scale
