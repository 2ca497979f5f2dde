"""Export: hand a spiking network to NeuroBench, so that its counters see what ours count.

NeuroBench books a layer call as accumulates only if every input is -1, 0 or 1; a spike scaled by a
threshold or an average of spikes would be booked as multiplications. The wrapped network is the
folded event form (`topospike.export.event_network`), where all of them are plain ones.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from topospike.conversion.methods.method import require_export
from topospike.errors import ConfigError, require
from topospike.export.event_network import SpikingPopulation, event_network
from topospike.snn.network import SpikingNetwork

if TYPE_CHECKING:
    from neurobench.models import NeuroBenchModel  # pyright: ignore[reportMissingImports]

FIRST_LAYER = {"mac_once": "once", "mac_per_step": "per_step"}


class BatchFirst(nn.Module):
    """A network that reads frames, given recordings as (batch, frame, ...)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, recordings: Tensor) -> Tensor:
        """Return the logits of a batch of recordings."""
        return self.network(recordings.transpose(0, 1))


def wrap_for_neurobench(
    snn: SpikingNetwork, timesteps: int = 8, *, first_layer: str = "mac_once"
) -> NeuroBenchModel:
    """Return a NeuroBench model of a spiking network.

    Parameters
    ----------
    snn
        A converted network of convolutions, linear layers, average pools and residual additions.
    timesteps
        Length of every run.
    first_layer : {"mac_once", "mac_per_step"}
        How often the layers that read the image are called; the convention of the same name.

    Returns
    -------
    neurobench.models.TorchModel
        Takes a batch of images, or of recordings (batch, frame, ...), as NeuroBench's loaders give
        them, and returns the logits after ``timesteps`` steps. The neurons are registered as
        activation modules.

    Raises
    ------
    MissingDependencyError
        If neurobench is not installed.
    ConversionError
        If the network is more than populations and weights (see `topospike.export.event_form`),
        or its method does more than its neurons do.
    ConfigError
        If ``first_layer`` is neither of the two.

    Notes
    -----
    Its ``Effective_ACs`` equal the SOPs of `topospike.measure.evaluate` after as many steps under
    the conventions ``pooled="fold"`` and ``links="existing"``, its ``Effective_MACs`` the MACs, to
    the digit, as long as no existing link has weight zero and no pixel value is zero: NeuroBench
    looks at values, we look at the mask. Its ``Dense`` counts every position of weights written as
    convolutions (groups and shortcuts filled up with zeros), so it is no number of ours.

    Of a network converted with ``input="events"`` each event enters as a one of its own, so the
    first layer's are ACs too, as under ``input_events="count"``.

    NeuroBench keeps the inputs of every call until the batch is counted: use small batches.

    Examples
    --------
    ``neurobench`` and what it imports install beside any torch with
    ``pip install --no-deps neurobench snntorch`` (its own requirements bring torchaudio).
    """
    if first_layer not in FIRST_LAYER:
        raise ConfigError(
            f"first_layer is {first_layer!r}; 'mac_once' or 'mac_per_step' is required "
            "(NeuroBench books what reads the image as MACs)."
        )
    require_export(snn.report, "neurobench")
    require("neurobench", "snntorch", purpose="a model for NeuroBench")
    from neurobench.models import TorchModel  # pyright: ignore[reportMissingImports]

    network: nn.Module = event_network(snn, timesteps, first_layer=FIRST_LAYER[first_layer])
    model: Any = TorchModel(network if snn.report.input == "image" else BatchFirst(network))
    # the name of this method has changed its spelling before; without it only the activation
    # metrics are missing
    register = getattr(model, "add_activation_module", None)
    if register is not None:
        register(SpikingPopulation)
    return model
