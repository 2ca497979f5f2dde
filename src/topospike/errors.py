"""The errors a user can meet, one small hierarchy.

Every message says three things: what was given (value, shape, layer name), what is required, and
what to do about it. Nothing else in the library raises a bare ``Exception``.
"""

from importlib.util import find_spec


class TopospikeError(Exception):
    """Base class of every error raised on purpose by topospike."""


class ConfigError(TopospikeError, ValueError):
    """An option, a recipe or an argument has a value that cannot be used."""


class ShapeError(TopospikeError, ValueError):
    """A tensor or array has the wrong number of axes or the wrong size."""


class NonFiniteError(TopospikeError, ArithmeticError):
    """NaN or infinity where a finite number is required; names the layer that produced it."""


class TopologyViolation(TopospikeError):
    """A model does not obey the topology it is supposed to have."""


class CheckpointError(TopospikeError):
    """A checkpoint or saved file is missing, damaged, or belongs to something else."""


class ConversionError(TopospikeError):
    """A network cannot be turned into a spiking one; names the place and the remedy."""


class MissingDataError(TopospikeError, FileNotFoundError):
    """A data folder, split or column is not there."""


class MissingDependencyError(TopospikeError, ImportError):
    """An optional package is not installed; names the extra that brings it."""


# What `pip install` needs to hear for each package that topospike itself does not bring.
INSTALL = {
    **dict.fromkeys(("jsonargparse", "yaml", "rich"), "'topospike[cli]'"),
    **dict.fromkeys(("datasets", "PIL", "kornia", "sklearn"), "'topospike[data]'"),
    "h5py": "'topospike[events]'",
    "igraph": "'topospike[analysis]'",
    **dict.fromkeys(("matplotlib", "plotly", "jinja2"), "'topospike[report]'"),
    "transformers": "'topospike[hf]'",
    "torch_pruning": "'topospike[prune]'",
    "nir": "'topospike[nir]'",
    "sanafe": "'topospike[chip]'",
    **dict.fromkeys(("onnx", "onnxscript"), "'topospike[onnx]'"),
    **dict.fromkeys(("ray", "optuna"), "'topospike[sweep]'"),
    # The requirements of neurobench bring torchaudio, which breaks transformers.
    **dict.fromkeys(("neurobench", "snntorch"), "--no-deps neurobench snntorch"),
}


def require(*packages: str, purpose: str) -> None:
    """Refuse to go on without packages that topospike does not bring by itself.

    Parameters
    ----------
    packages
        Names to import; each is in `INSTALL`.
    purpose
        What needs them, for the message.

    Raises
    ------
    MissingDependencyError
        If one is not installed; names the extra that brings it.

    Examples
    --------
    >>> require("numpy", purpose="this example")
    """
    for package in packages:
        if find_spec(package) is None:
            raise MissingDependencyError(
                f"{purpose} needs the package {package}, which is not installed; "
                f"pip install {INSTALL[package]}."
            )
