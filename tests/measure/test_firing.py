"""What fires is summed exactly, by the compiled loop and by formulas, however it lies in memory."""

import pytest
import torch

from topospike.measure.counting.firing import Active, SiteSums, firing_sums, in_memory_order
from topospike.snn.coding import Differential, SiteState
from topospike.snn.fused import Kept
from topospike.snn.neurons import IntegrateAndFire
from topospike.snn.site import Site
from topospike.wiring.images import ImageAxis


def literally(sent, links, steps, silent):
    """Sum one spike after the other."""
    sums = [[0] * steps for _ in range(1 + len(links))]
    images = len(sent) // steps
    for row, values in enumerate(sent.tolist()):
        for neuron, value in enumerate(values):
            if value != silent:
                sums[0][row // images] += 1
                for layer, weights in enumerate(links.tolist()):
                    sums[1 + layer][row // images] += int(weights[neuron])
    return sums


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("steps", "images", "neurons", "layers"),
    [(1, 300, 40, 1), (3, 2, 5000, 2), (8, 1, 300, 0), (2, 520, 7, 3), (2, 3, 1, 1)],
)
def test_sums_are_those_of_single_spikes(dtype, steps, images, neurons, layers):
    torch.manual_seed(0)
    sent = (torch.rand(steps * images, neurons) < 0.3).to(dtype)
    links = torch.randint(0, 9000, (layers, neurons)).double()
    silent = 1 if dtype is torch.uint8 else 0
    expected = literally(sent, links, steps, silent)
    assert firing_sums(sent, links, steps=steps, silent=silent).tolist() == expected


def test_shares_of_threads_add_up():
    sent = torch.arange(4 * 70_000).remainder(3).view(4, -1).to(torch.uint8)
    links = torch.arange(70_000.0, dtype=torch.float64)[None]
    threads = torch.get_num_threads()
    try:
        found = []
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(firing_sums(sent, links, steps=2).tolist())
    finally:
        torch.set_num_threads(threads)
    fired = sent.ne(0).view(2, 2, -1).sum(1)
    assert found[0] == found[1] == [fired.sum(1).tolist(), (fired * links).sum(1).tolist()]


@pytest.mark.parametrize("last", [False, True])
def test_a_site_is_summed_however_its_values_lie(last):
    """Codes of which 7 is silence, of channels first and last, images alternating with views."""
    torch.manual_seed(0)
    codes = torch.randint(5, 9, (2 * 3 * 2, 40, 5, 5), dtype=torch.uint8)
    lying = codes.to(memory_format=torch.channels_last) if last else codes
    of_site = SiteSums("site", ImageAxis(0, 2, leading=False), dense=False)
    of_site.neurons = torch.zeros(4, dtype=torch.float64)
    # two views of an image alternate with images: steps come first, so one step at a time
    for step in range(2):
        part = slice(6 * step, 6 * step + 6)
        of_site.add(Kept(codes=lying[part], shift=7), None, t=2 + step, steps=1)
    expected = [0, *(codes[6 * s : 6 * s + 6].ne(7).sum().item() for s in range(2)), 0]
    assert of_site.neurons.tolist() == expected


@pytest.mark.parametrize("neurons", [3, 500])
def test_active_neurons_are_counted_over_batches_in_any_memory_order(neurons):
    torch.manual_seed(0)
    site = Site("site", gated=True, neuron=IntegrateAndFire(), coding=Differential())
    site.threshold = torch.full((neurons, 1, 1), 0.5)
    active = Active(site)
    batches = [torch.randint(-1, 2, (2, neurons, 3, 2)).float() for _ in range(3)]
    tiny = torch.full((1, neurons, 3, 2), 1e-6)  # what rounding leaves
    last = batches[1].contiguous(memory_format=torch.channels_last)
    for decoded in (batches[0], last, batches[2], tiny):
        active.add(SiteState(decoded, None, None), ImageAxis(0, 1), None)
    assert torch.equal(active.counts.long(), torch.cat(batches).ne(0).sum(0))


def test_rows_lie_as_one_image_does():
    batch = torch.arange(2 * 24.0).view(2, 2, 3, 4).permute(0, 3, 1, 2)
    assert in_memory_order(batch).flatten().tolist() == list(range(48))
