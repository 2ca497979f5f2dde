import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from topospike.train.links import LinkProduct


def product_of(mask, seed=0, dtype=torch.float64):
    torch.manual_seed(seed)
    weight = (torch.randn(mask.shape, dtype=dtype) * mask).requires_grad_()
    values = weight.detach()[mask].requires_grad_()
    return weight, values, LinkProduct(mask, values)


def random_mask(rows, columns, links, seed=0):
    order = torch.randperm(rows * columns, generator=torch.Generator().manual_seed(seed))
    mask = torch.zeros(rows * columns, dtype=torch.bool)
    mask[order[:links]] = True
    return mask.view(rows, columns)


def test_a_product_by_hand():
    mask = torch.tensor([[False, True, True], [True, False, False]])
    values = torch.tensor([2.0, 3.0, 5.0], requires_grad=True)
    x = torch.tensor([[1.0, 10.0, 100.0], [0.0, 1.0, -1.0]], requires_grad=True)
    y = LinkProduct(mask, values)(x, values, torch.tensor([0.5, 0.0]))
    assert y.tolist() == [[320.5, 5.0], [-0.5, 0.0]]
    y.backward(torch.tensor([[1.0, 2.0], [4.0, 0.0]]))
    assert values.grad.tolist() == [14.0, 96.0, 2.0]
    assert x.grad.tolist() == [[10.0, 2.0, 3.0], [0.0, 8.0, 12.0]]


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    batch=st.lists(st.integers(1, 4), max_size=3),
    share=st.floats(0.01, 1.0),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_value_and_gradients_are_those_of_the_masked_layer(rows, columns, batch, share, bias, seed):
    mask = random_mask(rows, columns, max(1, round(share * rows * columns)), seed)
    weight, values, product = product_of(mask, seed)
    x = torch.randn(*batch, columns, dtype=torch.float64, requires_grad=True)
    x_2 = x.detach().clone().requires_grad_()
    b = torch.randn(rows, dtype=torch.float64, requires_grad=True) if bias else None
    b_2 = b.detach().clone().requires_grad_() if b is not None else None
    masked, compact = nn.functional.linear(x, weight, b), product(x_2, values, b_2)
    assert compact.shape == masked.shape
    torch.testing.assert_close(compact, masked)
    gradient = torch.randn_like(masked)
    masked.backward(gradient)
    compact.backward(gradient)
    torch.testing.assert_close(values.grad, weight.grad[mask])
    torch.testing.assert_close(x_2.grad, x.grad)
    if b is not None:
        torch.testing.assert_close(b_2.grad, b.grad)


def test_values_changed_in_place_change_the_product():
    mask = random_mask(5, 4, 7)
    weight, values, product = product_of(mask)
    with torch.no_grad():
        values.mul_(3)
        x = torch.randn(2, 4, dtype=torch.float64)
        torch.testing.assert_close(product(x, values, None), x @ weight.T * 3)
    x.requires_grad_()
    product(x, values, None).sum().backward()
    torch.testing.assert_close(x.grad, (3 * weight.detach()).sum(0).expand(2, -1))


def test_values_changed_between_forward_and_backward_are_noticed():
    _, values, product = product_of(random_mask(5, 4, 7))
    y = product(torch.randn(2, 4, dtype=torch.float64), values, None).sum()
    with torch.no_grad():
        values.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_without_mkl_torchs_own_kernel_gives_the_same(monkeypatch):
    mask = random_mask(6, 5, 9)
    weight, values, product = product_of(mask)
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    y = product(x, values, None)
    torch.testing.assert_close(y, x @ weight.T)
    y.sum().backward()
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(3, -1))


def test_under_autocast_the_products_keep_the_dtype_of_the_weights():
    weight, values, product = product_of(random_mask(6, 5, 9), dtype=torch.float32)
    x = torch.randn(3, 5, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = product(x.bfloat16(), values, None)
        assert y.dtype == torch.float32
        y.sum().backward()
    torch.testing.assert_close(y, x.bfloat16().float() @ weight.T)
    assert values.grad.dtype == torch.float32


def test_the_beta_notice_of_torch_reaches_nobody():
    # torch says it once in a process, at the first matrix of compressed rows: here every time.
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            product_of(random_mask(6, 5, 9))
            assert caught == []
            torch.eye(2).to_sparse_csr()
    finally:
        torch.set_warn_always(False)
    assert "beta state" in str(caught[0].message)
