"""Convert: the methods. One class each, which is also its options; lists keep this order."""

from topospike.conversion.methods.balancing import LTBMethod as LTBMethod
from topospike.conversion.methods.dcgs import DCGSMethod as DCGSMethod
from topospike.conversion.methods.method import METHODS as METHODS
from topospike.conversion.methods.method import Method as Method
from topospike.conversion.methods.qcfs import (
    CSQCFSMethod,
    OffsetSpikeMethod,
    SignedIFMethod,
    SlipReLUMethod,
    SRPMethod,
)
from topospike.conversion.methods.qcfs import QCFSMethod as QCFSMethod
from topospike.conversion.methods.sigma_delta import SigmaDeltaMethod as SigmaDeltaMethod
from topospike.conversion.methods.waiting import (
    GradedStepMethod,
    OneSpikeMethod,
    ParallelMethod,
    PhaseMethod,
)
from topospike.conversion.methods.waiting import LayerByLayerMethod as LayerByLayerMethod

for kind in (
    *(DCGSMethod, QCFSMethod, CSQCFSMethod, SlipReLUMethod, SignedIFMethod, SRPMethod),
    *(OffsetSpikeMethod, LTBMethod, SigmaDeltaMethod),
    *(ParallelMethod, PhaseMethod, OneSpikeMethod, GradedStepMethod),
):
    METHODS.register(kind.name, kind)

__all__ = [
    "METHODS",
    "DCGSMethod",
    "LTBMethod",
    "LayerByLayerMethod",
    "Method",
    "QCFSMethod",
    "SigmaDeltaMethod",
]
