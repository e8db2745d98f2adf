"""Several spectra on each table: the answers of as many tables, and none that depends on its neighbours."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lithostream.kernels.errors import ContractError
from lithostream.kernels.unmixing import Unmixing, nnls, reference
from tests.kernels.test_unmixing import Case, bytes_of, part_of, problems


@settings(max_examples=150, deadline=None)
@given(problems(), st.integers(0, 5))
def test_spectra_that_share_a_table_are_solved_as_if_each_had_its_own(case: Case, each: int) -> None:
    spectra, endmembers, options = case
    rng = np.random.default_rng(len(spectra))
    tables = endmembers * rng.uniform(0.5, 2, (len(spectra), *endmembers.shape))
    several = np.repeat(spectra[:, None], each, axis=1) + rng.normal(
        0, 0.1, (len(spectra), each, spectra.shape[1])
    )
    if several.size:  # one channel less in one of them
        several[0, -1, 0] = np.nan
    result = nnls(several, tables, **options)
    weights = options["weights"]
    if weights is not None and weights.ndim == 2:
        weights = np.repeat(weights, each, axis=0)
    own = {**options, "weights": weights}
    want = nnls(several.reshape(-1, spectra.shape[1]), np.repeat(tables, each, axis=0), **own)
    assert result.abundances.shape == (len(spectra), each, len(endmembers))
    flat = Unmixing(
        result.abundances.reshape(want.abundances.shape), result.residual.ravel(), result.flags.ravel()
    )
    np.testing.assert_array_equal(np.isnan(flat.residual), np.isnan(want.residual))
    size = 1 + np.nansum(np.nan_to_num(several) ** 2, axis=2).ravel()
    gap = np.abs(flat.residual**2 - want.residual**2)
    gap += options["ridge"] * np.abs((flat.abundances**2).sum(axis=1) - (want.abundances**2).sum(axis=1))
    assert np.all(gap <= 1e-10 * size, where=~np.isnan(gap))
    unique = (flat.flags == 0) & (want.flags == 0)
    far = np.abs(flat.abundances - want.abundances).max(axis=1, initial=0) * np.linalg.norm(endmembers)
    assert np.all(far[unique] <= 1e-5 * np.sqrt(size[unique]) * (1 + np.linalg.norm(endmembers)))


def test_tables_with_several_spectra_are_independent() -> None:
    rng = np.random.default_rng(5)
    tables = rng.random((300, 5, 8))
    several = np.einsum("pde,peb->pdb", rng.dirichlet(np.full(5, 0.5), (300, 7)), tables)
    several += rng.normal(0, 0.05, several.shape)
    several[rng.random(several.shape) < 0.01] = np.nan
    whole = nnls(several, tables, sum_to_one=True)
    np.testing.assert_allclose(
        whole.abundances,
        nnls(several.reshape(-1, 8), np.repeat(tables, 7, axis=0), sum_to_one=True).abundances.reshape(
            300, 7, 5
        ),
        atol=1e-12,
    )
    out = Unmixing(np.full((300, 7, 5), -1.0), np.full((300, 7), -1.0), np.full((300, 7), 9, np.uint8))
    assert nnls(several, tables, sum_to_one=True, out=out) is out and bytes_of(out) == bytes_of(whole)
    turned = rng.permutation(300)
    again = nnls(np.asfortranarray(several[turned]), tables[turned], sum_to_one=True)
    assert bytes_of(again) == bytes_of(part_of(whole, turned))
    few = nnls(several[:, 2:4], tables, sum_to_one=True)
    assert few.abundances.tobytes() == whole.abundances[:, 2:4].tobytes()


def test_several_spectra_want_a_table_each() -> None:
    with pytest.raises(
        ContractError, match=r"endmembers: expected float64 \[4, \*, 3\], got float64 \[2, 3\]"
    ):
        nnls(np.zeros((4, 2, 3)), np.ones((2, 3)))


def test_the_reference_knows_them_too() -> None:
    rng = np.random.default_rng(6)
    tables, weights = rng.random((3, 4, 6)), rng.random((3, 6)) + 0.1
    several = np.einsum("pde,peb->pdb", rng.dirichlet(np.ones(4), (3, 2)), tables)
    several += rng.normal(0, 0.02, several.shape)
    got = nnls(several, tables, weights=weights)
    want = reference.nnls(several, tables, weights=weights)
    np.testing.assert_allclose(got.abundances, want.abundances, atol=1e-10)
    np.testing.assert_allclose(got.residual, want.residual, atol=1e-12)
