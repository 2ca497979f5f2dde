"""How large a threshold is: statistics of what reaches a site, and the solvers that read them.

Arithmetic on tensors: no model, no graph and no neuron is known here.
"""

from topospike.thresholds.solvers import SOLVERS as SOLVERS
from topospike.thresholds.solvers import solve_thresholds as solve_thresholds
from topospike.thresholds.statistics import SiteObserver as SiteObserver
from topospike.thresholds.statistics import SiteStatistics as SiteStatistics

__all__ = ["SOLVERS", "SiteObserver", "SiteStatistics", "solve_thresholds"]
