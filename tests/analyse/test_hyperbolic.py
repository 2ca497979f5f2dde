"""Coalescent embedding against the golden vectors, under the sign freedom of eigenvectors."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

from topospike.analyse.graph import LayeredGraph
from topospike.analyse.hyperbolic import (
    coalescent_embedding,
    equidistant_adjustment,
)
from topospike.analyse.preweighting import link_weights

ORACLES = Path(__file__).parents[1] / "oracles" / "topology"
NETWORKS = ("karate", "chain60", "chainpl90", "npso100")
WEIGHTINGS = ("RA1", "RA2", "EBC", "original")
REDUCTIONS = ("ISO", "ncISO", "LE", "MCE", "ncMCE")


def load(name):
    with np.load(ORACLES / f"net_{name}.npz", allow_pickle=False) as stored:
        return dict(stored)


def network(stored):
    n = int(stored["n"])
    return LayeredGraph(
        sizes=(n,),
        edges=stored["edges"].astype(np.int64),
        layers=np.zeros(n, dtype=np.int64),
        weights=stored["edge_w_original"],
    )


def flags(name):
    return json.loads((ORACLES / f"net_{name}_flags.json").read_text())


def usable(only_untied=False):
    cases = []
    for name, weighting, reduction in itertools.product(NETWORKS, WEIGHTINGS, REDUCTIONS):
        flag = flags(name)[f"{weighting}_{reduction}"]
        if flag["use_in_test"] and (not only_untied or flag["n_tied_1e-9"] == 0):
            cases.append((name, weighting, reduction))
    return cases


def circular_error(a, b):
    return np.abs(np.pi - np.abs(np.pi - np.abs(a - b) % (2 * np.pi))).max()


def signed_versions(theta, reduction):
    if "MCE" in reduction:
        n = len(theta)
        return [theta, 2 * np.pi * (n - 1) / n - theta]
    return [theta, -theta, np.pi - theta, np.pi + theta]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_link_weights_match_the_reference(name, weighting):
    stored = load(name)
    ours = link_weights(network(stored), weighting)
    tolerance = 1e-10 if weighting == "EBC" else 1e-12
    np.testing.assert_allclose(ours, stored[f"edge_w_{weighting}"], rtol=tolerance)


@pytest.mark.parametrize("name", NETWORKS)
def test_radii_and_gamma_match_the_reference(name):
    stored = load(name)
    embedding = coalescent_embedding(network(stored))
    assert embedding.gamma == pytest.approx(float(stored["gamma"]), abs=1e-9)
    assert embedding.fit.xmin == int(stored["xmin"])
    assert embedding.fit.loglik == pytest.approx(float(stored["loglik_nofinite"]), abs=1e-6)
    assert embedding.fit.alpha == pytest.approx(float(stored["gamma_nofinite"]), abs=1e-9)
    np.testing.assert_allclose(embedding.r, stored["r"], atol=1e-12)


@pytest.mark.parametrize(("name", "weighting", "reduction"), usable())
def test_original_angles_match_the_reference_up_to_sign(name, weighting, reduction):
    stored = load(name)
    ours = coalescent_embedding(network(stored), weighting, reduction, angles="original").theta
    theirs = stored[f"theta_{weighting}_{reduction}_original"]
    best = min(circular_error(v, theirs) for v in signed_versions(ours, reduction))
    assert best < 1e-6


@pytest.mark.parametrize(("name", "weighting", "reduction"), usable(only_untied=True))
def test_equidistant_angles_match_up_to_reflection_and_shift(name, weighting, reduction):
    stored = load(name)
    ours = coalescent_embedding(network(stored), weighting, reduction).theta
    theirs = stored[f"theta_{weighting}_{reduction}_EA"]
    n = len(ours)
    errors = [
        circular_error(sign * ours + 2 * np.pi * shift / n, theirs)
        for sign in (1, -1)
        for shift in range(n)
    ]
    assert min(errors) < 1e-9


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("reduction", ["ISO", "ncISO", "LE"])
def test_equidistant_adjustment_of_stored_angles(name, weighting, reduction):
    stored = load(name)
    given = stored[f"theta_{weighting}_{reduction}_original"]
    order = np.argsort(given, kind="stable")
    gaps = np.diff(given[order])
    if gaps.min() > 1e-9:
        np.testing.assert_allclose(
            equidistant_adjustment(given), stored[f"theta_{weighting}_{reduction}_EA"], atol=1e-12
        )
    assert np.sort(equidistant_adjustment(given)) == pytest.approx(
        2 * np.pi * np.arange(len(given)) / len(given)
    )
