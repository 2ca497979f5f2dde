import torch

from topospike.direct.spine_ranges import SpineRanges


def follow(ranges, values, *, patience):
    for value in values:
        ranges.follow(torch.as_tensor(value), patience=patience)


def test_ranges_start_at_the_largest_signed_weight():
    ranges = SpineRanges(torch.tensor([-3.0, 2.0, 0.5]))
    assert ranges.upper.tolist() == [2.0] * 3
    assert ranges.lower.tolist() == [-2.0] * 3


def test_a_weight_that_stays_below_takes_the_lower_end_along():
    ranges = SpineRanges(torch.tensor([1.0, 0.0]))
    follow(ranges, [[-1.5, 0.0]] * 3, patience=3)
    assert ranges.lower.tolist() == [-1.0, -1.0]
    follow(ranges, [[-1.5, 0.0]], patience=3)
    assert ranges.lower.tolist() == [-1.5, -1.0]


def test_one_epoch_without_the_condition_starts_the_count_again():
    ranges = SpineRanges(torch.tensor([1.0]))
    follow(ranges, [[2.0], [2.0], [0.5], [2.0], [2.0]], patience=2)
    assert ranges.upper.tolist() == [1.0]
    follow(ranges, [[2.0]], patience=2)
    assert ranges.upper.tolist() == [2.0]


def test_a_shrinking_weight_narrows_its_range():
    ranges = SpineRanges(torch.tensor([1.0, 1.0]))
    follow(ranges, [[0.9, 1.0], [0.8, 1.0], [0.7, 1.0]], patience=2)
    # the second weight sits on its upper end, which moves by 0
    assert ranges.sizes.tolist() == [1.5, 2.0]


def test_weights_are_brought_into_their_ranges_in_place():
    ranges = SpineRanges(torch.tensor([1.0, 0.5]))
    weight = torch.tensor([3.0, -3.0])
    ranges.clip(weight)
    assert weight.tolist() == [1.0, -1.0]


def test_state_goes_through_a_checkpoint():
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(5, generator=generator) for _ in range(12)]
    one = SpineRanges(weights[0])
    follow(one, weights[1:6], patience=2)
    other = SpineRanges.from_state(one.state(), torch.device("cpu"))
    follow(one, weights[6:], patience=2)
    follow(other, weights[6:], patience=2)
    assert torch.equal(one.upper, other.upper)
    assert torch.equal(one.lower, other.lower)
