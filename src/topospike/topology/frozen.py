"""Stage topology: the frozen result of sparse training, which every later stage inherits.

A `Topology` holds the links of every masked layer as packed bits, and where they come from. It
cannot be changed, needs no model to be read, and can prove that a model still obeys it. The weights
are not part of it. The file format is `topospike.topology.archive`'s.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from topospike.errors import CheckpointError, ConfigError, ShapeError, TopologyViolation
from topospike.topology.archive import PackedMask, read_archive, write_archive
from topospike.topology.layers import get_mask, masks_of, original
from topospike.topology.masks import (
    check_absent,
    check_masks,
    pack_bits,
    register_mask,
    set_mask,
    unpack_bits,
)


@dataclass(frozen=True, eq=False)
class Topology:
    """The links of a sparse network, frozen.

    Make one with `from_masks`, `from_model` or `load`. Two topologies are equal when their links
    are, whatever the order of the layers and the provenance.

    Attributes
    ----------
    layers
        Packed masks in module order (input side first).
    provenance_json
        Where the topology comes from, as JSON text; read it through `provenance`.

    Examples
    --------
    >>> topology = Topology.from_masks({"fc1.weight": torch.eye(2, dtype=torch.bool)})
    >>> topology.sparsity(), topology.masks["fc1.weight"].tolist()
    (0.5, [[True, False], [False, True]])
    """

    layers: tuple[PackedMask, ...]
    provenance_json: str = "{}"

    @classmethod
    def from_masks(
        cls,
        masks: Mapping[str, Bool[Tensor, ...]],
        *,
        provenance: Mapping[str, Any] | None = None,
    ) -> Topology:
        """Freeze masks given by parameter name, in the order given.

        Parameters
        ----------
        masks
            Parameter name (``fc1.weight``) -> bool tensor of the parameter's shape.
        provenance
            Anything JSON can hold: rule, seed, epochs, sparsity.

        Raises
        ------
        ConfigError
            If a mask is not bool, there is none, or the provenance cannot become JSON.

        Examples
        --------
        >>> Topology.from_masks({"fc.weight": torch.ones(2, 3, dtype=torch.bool)}).counts()
        {'fc.weight': 6}
        """
        if not masks:
            raise ConfigError("no masks were given; a topology needs at least one layer.")
        for name, mask in masks.items():
            if mask.dtype is not torch.bool or mask.dim() == 0 or mask.numel() == 0:
                raise ConfigError(
                    f"{name}: mask of dtype {mask.dtype} and shape {tuple(mask.shape)}; a bool "
                    "tensor with at least one element is required."
                )
        return cls(
            layers=tuple(_pack(name, mask) for name, mask in masks.items()),
            provenance_json=_provenance_text(provenance or {}),
        )

    @classmethod
    def from_model(
        cls, model: nn.Module, *, provenance: Mapping[str, Any] | None = None
    ) -> Topology:
        """Freeze the masks of a model, after checking that its weights obey them.

        Raises
        ------
        TopologyViolation
            If no parameter has a mask, or a weight off its mask is not zero.

        Examples
        --------
        >>> model = nn.Sequential(nn.Linear(2, 1))
        >>> register_mask(model[0], torch.tensor([[True, False]]))
        >>> Topology.from_model(model, provenance={"rule": "static"}).names
        ('0.weight',)
        """
        masks = masks_of(model)
        if not masks:
            raise TopologyViolation(
                f"no parameter of {type(model).__name__} has a mask, so the model is dense and has "
                "no topology; sparsify it or load a sparse checkpoint first."
            )
        check_masks(model)
        return cls.from_masks(masks, provenance=provenance)

    @property
    def names(self) -> tuple[str, ...]:
        """Parameter names in module order."""
        return tuple(layer.name for layer in self.layers)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Parameter name -> shape of the mask."""
        return {layer.name: layer.shape for layer in self.layers}

    @property
    def masks(self) -> dict[str, Bool[Tensor, ...]]:
        """Fresh bool tensors by parameter name, on the CPU; changing them changes nothing here."""
        return {layer.name: _unpack(layer) for layer in self.layers}

    @property
    def provenance(self) -> dict[str, Any]:
        """A fresh copy of what was said about the origin of the topology."""
        return json.loads(self.provenance_json)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of names, shapes and links; the order of layers does not matter.

        Examples
        --------
        >>> a, b = torch.eye(2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
        >>> one = Topology.from_masks({"a": a, "b": b})
        >>> one.digest == Topology.from_masks({"b": b, "a": a}).digest
        True
        """
        sha = hashlib.sha256(b"topospike-topology-1\n")
        for layer in sorted(self.layers, key=lambda layer: layer.name):
            sha.update(json.dumps([layer.name, layer.shape]).encode() + b"\n")
            sha.update(layer.bits)
        return sha.hexdigest()

    def counts(self) -> dict[str, int]:
        """Return the number of links of every layer."""
        return {layer.name: _count(layer) for layer in self.layers}

    def sparsities(self) -> dict[str, float]:
        """Return the share of absent links of every layer."""
        return {layer.name: 1.0 - _count(layer) / math.prod(layer.shape) for layer in self.layers}

    def sparsity(self) -> float:
        """Return the share of absent links over all layers of the topology (dense layers aside)."""
        possible = sum(math.prod(layer.shape) for layer in self.layers)
        return 1.0 - sum(self.counts().values()) / possible

    def verify(self, model: nn.Module) -> None:
        """Raise unless a model has exactly these links.

        Every layer of the topology must be a parameter of the model with zeros off the mask. Where
        the model has mask buffers they must be equal, and no further layer may have one; a model
        without any (a converted or exported one) is judged by its weights alone.

        Raises
        ------
        TopologyViolation
            Names the layer, how many positions are wrong, the first of them, and its value.

        Examples
        --------
        >>> model = nn.Sequential(nn.Linear(2, 1))
        >>> register_mask(model[0], torch.tensor([[True, False]]))
        >>> topology = Topology.from_model(model)
        >>> _ = model[0].weight.data.fill_(2.0)
        >>> topology.verify(model)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        topospike.errors.TopologyViolation: 0.weight: 1 weight off the mask is not zero, ...
        """
        parameters = dict(original(model).named_parameters(remove_duplicate=False))
        buffers = masks_of(model)
        for name in sorted(buffers.keys() - set(self.names)):
            raise TopologyViolation(
                f"{name}: the model has a mask here but the topology has no such layer; "
                f"it has {', '.join(self.names)}."
            )
        for name, mask in self.masks.items():
            parameter = parameters.get(name)
            if parameter is None or parameter.shape != mask.shape:
                found = "missing" if parameter is None else f"of shape {tuple(parameter.shape)}"
                raise TopologyViolation(
                    f"{name}: {found} in the model; the topology has shape {tuple(mask.shape)}."
                )
            mask = mask.to(parameter.device)
            if buffers:
                _check_same_links(name, buffers.get(name), mask)
            check_absent(name, parameter, mask)

    def apply_to(self, model: nn.Module) -> None:
        """Give a model these links: register or overwrite masks, and zero weights off them.

        Use it before loading a sparse checkpoint into a freshly built model. Nothing is changed
        when a layer does not fit.

        Raises
        ------
        ConfigError
            If the model lacks a parameter of the topology.
        ShapeError
            If a parameter has another shape.

        Examples
        --------
        >>> topology = Topology.from_masks({"0.weight": torch.tensor([[True, False]])})
        >>> model = nn.Sequential(nn.Linear(2, 1))
        >>> topology.apply_to(model)
        >>> topology.verify(model)
        """
        model = original(model)
        parameters = dict(model.named_parameters(remove_duplicate=False))
        for name, shape in self.shapes.items():
            if name not in parameters:
                raise ConfigError(
                    f"the topology has a layer {name!r} that {type(model).__name__} lacks; "
                    "build the model that the topology was frozen from."
                )
            if tuple(parameters[name].shape) != shape:
                raise ShapeError(
                    f"{name} has shape {tuple(parameters[name].shape)}; the topology has {shape}."
                )
        for name, mask in self.masks.items():
            path, _, attribute = name.rpartition(".")
            module = model.get_submodule(path)
            write = register_mask if get_mask(module, attribute) is None else set_mask
            write(module, mask, name=attribute)

    def save(self, path: str | Path) -> None:
        """Write the topology as an ``.npz`` file, atomically; the same topology gives equal bytes.

        Raises
        ------
        CheckpointError
            If the file cannot be written.
        """
        write_archive(path, layers=self.layers, provenance=self.provenance_json, digest=self.digest)

    @classmethod
    def load(
        cls, path: str | Path, shapes: Mapping[str, tuple[int, ...]] | None = None
    ) -> Topology:
        """Read what `save` wrote and check its digest.

        Parameters
        ----------
        path
            The file. In a run folder it must be as the run wrote it (`topospike verify`).
        shapes
            Of the parameters of the model it belongs to; other layers are refused before any of
            their links are read.

        Raises
        ------
        MissingDataError
            If there is no such file.
        CheckpointError
            If it is truncated, damaged, changed, or not a topology.
        """
        layers, provenance, digest = read_archive(path, shapes)
        topology = cls(layers=layers, provenance_json=provenance)
        if topology.digest != digest:
            raise CheckpointError(
                f"{path}: the links do not match the stored digest ({topology.digest} against "
                f"{digest}); the file was changed or damaged. Restore it or save it again."
            )
        return topology

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Topology) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        links = sum(self.counts().values())
        return (
            f"Topology({len(self.layers)} layers, {links} links, sparsity {self.sparsity():.4f}, "
            f"digest {self.digest[:12]})"
        )


def _pack(name: str, mask: Tensor) -> PackedMask:
    return PackedMask(name=name, shape=tuple(mask.shape), bits=pack_bits(mask).numpy().tobytes())


def _unpack(layer: PackedMask) -> Bool[Tensor, "*shape"]:
    return unpack_bits(torch.frombuffer(bytearray(layer.bits), dtype=torch.uint8), layer.shape)


def _count(layer: PackedMask) -> int:
    return int(np.bitwise_count(np.frombuffer(layer.bits, dtype=np.uint8)).sum())


def _provenance_text(provenance: Mapping[str, Any]) -> str:
    try:
        return json.dumps(dict(provenance), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"provenance {dict(provenance)!r} cannot become JSON ({error}); "
            "use strings, finite numbers, lists and dictionaries."
        ) from error


def _check_same_links(name: str, found: Tensor | None, mask: Tensor) -> None:
    if found is None:
        raise TopologyViolation(
            f"{name}: a layer of the topology, but the model has no mask here although it has "
            "masks elsewhere."
        )
    bad = found != mask
    if bool(bad.any()):
        index = tuple(bad.nonzero()[0].tolist())
        raise TopologyViolation(
            f"{name}: {int(bad.sum())} links differ from the topology, the first at index {index} "
            f"with value {bool(found[index])} in the model and {bool(mask[index])} in the topology."
        )
