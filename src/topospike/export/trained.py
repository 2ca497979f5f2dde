"""Export: networks trained through time, which most forms cannot say."""

from __future__ import annotations

from torch import nn

from topospike.direct import DirectNetwork
from topospike.errors import ConversionError


def refuse_trained(network: nn.Module, form: str) -> None:
    """Raise `ConversionError` for a network that was trained through time.

    Its neurons leak, are reset and begin as their settings say, and it has no ANN.
    """
    if isinstance(network, DirectNetwork):
        raise ConversionError(
            f"this network was trained through time, and {form} is written of converted networks: "
            "leak and reset of its neurons would be lost. Keep its weights (save_file of "
            "safetensors) with the recipe that builds it, hand them over with export_csr, or "
            "convert an ANN by 'qcfs'."
        )
