"""Networks that read frames, handed over: equal outputs while frames arrive, or refused."""

from functools import cache

import pytest
import torch
from torch import nn

import topospike as ts
from topospike.direct import spiking_model, spiking_network
from topospike.errors import ConversionError, ShapeError
from topospike.export import (
    event_network,
    export_csr,
    export_nir,
    export_onnx,
    read_csr,
    simulate_nir,
)
from topospike.export.event_network import single_events
from topospike.recipe import DirectSettings
from topospike.topology import register_mask

FRAMES, STEPS = 5, 9


def counts(batch=7, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (FRAMES, batch, 2, 6, 6)
    return torch.poisson(torch.full(shape, 0.6, dtype=torch.float64), generator=generator)


def network():
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(2, 6, 3, stride=2, padding=1), nn.ReLU(), nn.AvgPool2d(3),
        nn.Flatten(), nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3),
    ).double()  # fmt: skip
    for layer in (model[0], model[4]):
        register_mask(layer, torch.rand(layer.weight.shape) < 0.6)
    return model.eval()


@cache
def converted(method="qcfs", input="events"):
    return ts.convert(network(), method, [counts(32, seed=9)], input=input)


@cache
def trained_through_time(input="events"):
    model = spiking_model(network(), DirectSettings(timesteps=FRAMES), input=input)
    frames = counts()
    return spiking_network(model.eval(), frames if input == "events" else frames[0])


def presented(frames, steps=STEPS):
    """Frame t at step t, and the mean of all of them afterwards."""
    after = frames.mean(0).expand(max(0, steps - len(frames)), *frames.shape[1:])
    return torch.cat([frames, after])[:steps]


READS = pytest.mark.parametrize("input", ["frames", "events"])


@READS
@pytest.mark.parametrize("method", ["qcfs", "dcgs"])
def test_the_event_network_answers_the_same_at_every_step(method, input):
    snn, frames = converted(method, input), counts()
    expected = snn(frames, STEPS)
    for t, logits, spikes in event_network(snn, STEPS).steps(frames):
        assert torch.allclose(logits, expected[t - 1], atol=1e-10, rtol=0)
        assert spikes
    fewer = event_network(snn, 2)(frames)
    assert torch.allclose(fewer, expected[1], atol=1e-10, rtol=0)


def test_events_enter_one_by_one():
    seen = []
    snn, frames = converted(), counts(3)
    form = event_network(snn, FRAMES)
    first = form.axons_of("1")[0]
    first.steps.register_forward_hook(lambda module, given, result: seen.append(given[0]))
    form(frames)
    assert all(set(part.unique().tolist()) <= {0.0, 1.0} for part in seen)
    assert sum(float(part.sum()) for part in seen) == float(frames.sum())
    assert single_events(torch.zeros(2, 2)) == []


def test_silent_frames_and_recordings():
    snn, frames = converted(), counts()
    frames[1] = 0.0
    frames[:, 2] = 0.0
    assert torch.allclose(event_network(snn, STEPS)(frames), snn(frames, STEPS)[-1], atol=1e-10)


@READS
def test_nir_is_shown_frame_t_at_step_t(input, tmp_path):
    snn, frames = converted("qcfs", input), counts()
    report = export_nir(snn, tmp_path / "net.nir")
    assert any("what follows the last frame" in sentence for sentence in report.lost)
    run = simulate_nir(tmp_path / "net.nir", presented(frames))
    means = run.output.flatten(2).cumsum(0) / torch.arange(1, STEPS + 1).view(-1, 1, 1)
    assert torch.allclose(means, snn(frames, STEPS), atol=1e-10, rtol=0)


def test_nir_of_binary_axons_takes_up_what_changes(tmp_path):
    snn, frames = converted("dcgs"), counts()
    export_nir(snn, tmp_path / "net.nir", binary_axons=True)
    run = simulate_nir(tmp_path / "net.nir", presented(frames))
    spikes = dict.fromkeys(snn.sites, 0.0)
    for record in snn.watch(frames, STEPS):
        for name, state in record.sites.items():
            spikes[name] += float((state.spikes != 0).sum())
    for name, expected in spikes.items():
        sent = [s for node, s in run.spikes.items() if node.startswith(f"n{name}_axon")]
        assert sum(float(part.sum()) for part in sent) == expected > 0


@READS
def test_csr_says_what_the_network_reads(input, tmp_path):
    snn = converted("dcgs", input)
    found = read_csr(export_csr(snn, tmp_path))
    assert found.description["conversion"]["input"] == input
    for layer in snn.wiring:
        weight = snn.ann.get_submodule(layer.name).weight
        assert torch.equal(found.layers[layer.name].weight, weight)
        assert torch.equal(found.layers[layer.name].mask, layer.links)


@READS
@pytest.mark.parametrize("method", ["qcfs", "dcgs", "sigma-delta"])
def test_saved_and_loaded_it_is_the_same_network(method, input, tmp_path):
    snn, frames = converted(method, input), counts()
    ts.save(snn, tmp_path)
    again = ts.load(tmp_path)
    assert again.report == snn.report
    for hold in (1, 2):
        assert torch.equal(again(frames, STEPS, hold=hold), snn(frames, STEPS, hold=hold))


@READS
def test_neurobench_counts_what_we_count(input):
    pytest.importorskip("neurobench")
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.workload import SynapticOperations
    from torch.utils.data import DataLoader, TensorDataset

    snn, frames = converted("qcfs", input), counts()
    if input == "frames":
        frames = frames + 0.25  # NeuroBench does not count numbers that are 0
    labels = torch.zeros(7, dtype=torch.long)
    ours = ts.evaluate(snn, [(frames, labels)], STEPS)
    model = ts.wrap_for_neurobench(snn, STEPS)
    assert torch.allclose(model(frames.transpose(0, 1)), snn(frames, STEPS)[-1], atol=1e-10)
    data = DataLoader(TensorDataset(frames.transpose(0, 1), labels), batch_size=4)
    theirs = Benchmark(model, data, [], [], [[], [SynapticOperations]]).run(quiet=True)
    found = theirs["SynapticOperations"]
    assert found["Effective_ACs"] == pytest.approx(ours.sops[-1], rel=1e-12)
    assert found["Effective_MACs"] == pytest.approx(ours.macs, rel=1e-12)
    assert (found["Effective_MACs"] > 0) == (input == "frames")


def test_onnx_is_the_ann_of_the_mean(tmp_path):
    runtime = pytest.importorskip("onnx.reference")
    snn, frames = converted(), counts()
    path = export_onnx(snn, tmp_path / "net.onnx", frames)
    session = runtime.ReferenceEvaluator(str(path))
    (found,) = session.run(None, {"input": frames.mean(0).numpy()})
    assert torch.allclose(torch.from_numpy(found), snn.analog(frames), atol=1e-10)
    with pytest.raises(ShapeError, match="frame, batch, 2, 6, 6"):
        export_onnx(snn, path, frames[0])


def test_a_simulated_chip_is_given_images():
    pytest.importorskip("sanafe")
    with pytest.raises(ConversionError, match=r"input='events'.*input='image' and pass the mean"):
        ts.simulate_chip(converted(), counts()[0])


@pytest.mark.parametrize("input", ["image", "events"])
@pytest.mark.parametrize(
    "form",
    [
        lambda snn, path: event_network(snn, FRAMES),
        lambda snn, path: export_nir(snn, path / "net.nir"),
        lambda snn, path: export_onnx(snn, path / "net.onnx", counts()),
        lambda snn, path: ts.wrap_for_neurobench(snn, FRAMES),
        lambda snn, path: ts.simulate_chip(snn, counts()[0]),
    ],
)
def test_a_network_trained_through_time_is_refused_with_the_remedy(form, input, tmp_path):
    with pytest.raises(ConversionError, match=r"trained through time.*export_csr"):
        form(trained_through_time(input), tmp_path)


def test_a_network_trained_through_time_has_its_weights_as_csr(tmp_path):
    snn = trained_through_time()
    found = read_csr(export_csr(snn, tmp_path))
    assert found.description["conversion"]["input"] == "events"
    assert torch.equal(found.layers["0"].mask, snn.wiring[0].links)
    with pytest.raises(ConversionError, match="keep the model it was made from"):
        ts.save(snn, tmp_path)
