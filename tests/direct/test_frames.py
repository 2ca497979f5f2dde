"""Networks trained through time that read frame t at step t."""

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.direct import Dpap, SdSnn, spiking_model, spiking_network
from topospike.direct.batches import WholeBatches
from topospike.errors import ConfigError
from topospike.recipe import DirectSettings


def frames(count=4, batch=12):
    generator = torch.Generator().manual_seed(0)
    return torch.poisson(torch.full((count, batch, 2, 6, 6), 0.8), generator=generator)


def model(timesteps=4, input="events"):
    torch.manual_seed(3)
    net = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
        nn.Linear(72, 20), nn.ReLU(), nn.Linear(20, 3),
    )  # fmt: skip
    with torch.no_grad():  # so large that every population fires
        for layer in (net[0], net[5], net[7]):
            layer.weight.mul_(8)
    return spiking_model(net, DirectSettings(timesteps=timesteps), input=input)


def present(spiking, shown):
    """The mean output when the frames are fed by hand, one a step."""
    for neuron in spiking.neurons.values():
        neuron.reset()
    outputs = [spiking.step(frame) for frame in shown]
    for neuron in spiking.neurons.values():
        neuron.reset()
    return torch.stack(outputs).mean(0)


def test_step_t_reads_frame_t():
    spiking, x = model().eval(), frames()
    assert spiking(x).any()
    assert torch.equal(spiking(x), present(spiking, x))
    held = model(8).eval()
    assert torch.equal(held(x), present(held, x.repeat_interleave(2, 0)))


def test_constant_frames_are_an_image():
    x = frames()[0]
    assert torch.equal(model().eval()(x.expand(4, *x.shape)), model(input="image").eval()(x))


@pytest.mark.parametrize("timesteps", [4, 8])
def test_the_engine_answers_as_the_model_at_every_step(timesteps):
    spiking, x = model(timesteps).eval(), frames()
    network = spiking_network(spiking, x)
    answers = network(x, timesteps)
    outputs = torch.stack(list(spiking.steps(x)))
    assert len(outputs) == timesteps
    for t in range(1, timesteps + 1):
        torch.testing.assert_close(answers[t - 1], outputs[:t].mean(0))
    torch.testing.assert_close(network.analog(x), spiking(x))
    assert torch.equal(network(x, timesteps // 2), answers[: timesteps // 2])


def test_events_that_enter_are_counted():
    spiking, x = model(8).eval(), frames()
    result = ts.evaluate(spiking_network(spiking, x), [(x, torch.arange(12) % 3)], 8)
    first = result.layers[0]
    assert first.input == "events"
    assert first.snn_macs[-1] == 0
    inner = x[:, :, :, 1:-1, 1:-1].sum()
    assert float(inner) * 9 * 8 / 12 < first.sops[-1] < float(x.sum()) * 9 * 8 / 12
    assert result.conventions["hold"] == 2
    assert result.ann_accuracy_per_step == ()


def test_gradients_reach_every_frame():
    spiking, x = model().train(), frames().requires_grad_()
    spiking(x).square().sum().backward()
    assert (x.grad.flatten(1) != 0).any(1).all()
    assert all(p.grad is not None for p in spiking.parameters())


@pytest.mark.parametrize("rule", [Dpap, SdSnn])
def test_structure_rules_train_on_frames(rule):
    spiking, x = model().train(), frames()
    controller = rule(spiking, epochs=60, scale_epochs=True)
    optimizer = torch.optim.SGD(spiking.parameters(), lr=0.1)
    controller.attach(optimizer)
    for epoch in range(12):
        optimizer.zero_grad()
        nn.functional.cross_entropy(spiking(x), torch.arange(12) % 3).backward()
        optimizer.step()
        controller.update_topology(epoch)
    assert torch.isfinite(spiking(x)).all()


def test_batches_are_cut_along_the_images():
    x, y = frames(batch=5), torch.arange(5)

    class Split(list):
        def set_epoch(self, epoch):
            pass

    batches = WholeBatches(Split([(x, y)]), batch_size=4, images=5, axis=1)
    ((shown, labels),) = batches
    assert torch.equal(shown, x[:, :4])
    assert labels.tolist() == [0, 1, 2, 3]


def test_wrong_numbers_of_frames_are_named():
    spiking = model()
    with pytest.raises(ConfigError, match="3 frames were given to a network of 4 steps"):
        spiking(frames(3))
    network = spiking_network(spiking.eval(), frames())
    with pytest.raises(ConfigError, match=r"timesteps is 5, and 4 frames of 1 step\(s\) last 4"):
        network(frames(), 5)
    assert network(frames(), 8, hold=2).shape == (8, 12, 3)
    with pytest.raises(ConfigError, match="Did you mean 'events'"):
        spiking_model(nn.Sequential(nn.Linear(2, 3), nn.ReLU()), input="event")
