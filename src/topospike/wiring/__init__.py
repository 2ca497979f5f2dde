"""What feeds what: the links of every layer of a captured graph, and what an event costs there."""

from topospike.wiring.fanout import Population as Population
from topospike.wiring.fanout import Wiring as Wiring
from topospike.wiring.fanout import wire as wire
from topospike.wiring.layers import Feed as Feed
from topospike.wiring.layers import Layer as Layer

__all__ = ["Feed", "Layer", "Population", "Wiring", "wire"]
