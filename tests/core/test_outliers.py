from __future__ import annotations

import torch

from isogloss.core.outliers import MOST, find_outliers, gelu_peaks, linear_peaks, norm_peaks


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_channels_that_stand_out() -> None:
    peaks = torch.ones(100)
    peaks[[70, 3]] = torch.tensor([20.0, 7.0])
    peaks[50] = 5.9
    assert find_outliers(peaks).tolist() == [3, 70]


def test_mostly_there_are_none() -> None:
    assert find_outliers(torch.ones(16)).tolist() == []
    assert find_outliers(random(768).abs() + 1).tolist() == []
    assert find_outliers(torch.tensor([1.0])).tolist() == []


def test_no_more_than_are_cheap() -> None:
    peaks = torch.ones(100)
    peaks[:20] = torch.arange(20.0, 40.0)
    assert find_outliers(peaks).tolist() == list(range(20 - MOST, 20))


def test_peaks_are_those_of_what_a_norm_and_a_linear_layer_give() -> None:
    gain, shift = random(64, seed=1).abs() + 0.1, random(64, seed=2)
    gain[5] = 40
    weight, bias = random(32, 64, seed=3) / 8, random(32, seed=4)
    norm = torch.nn.LayerNorm(64)
    norm.weight.data, norm.bias.data = gain, shift
    with torch.inference_mode():
        given = norm(random(4000, 64, seed=5))
        inner = given @ weight.T + bias
        activated = torch.nn.functional.gelu(inner)
    for peaks, values in (
        (norm_peaks(gain, shift), given),
        (linear_peaks(weight, bias, gain, shift), inner),
        (gelu_peaks(weight, bias, gain, shift), activated),
    ):
        seen = values.abs().quantile(0.99, dim=0)
        assert (seen <= 1.2 * peaks).all()
        assert (peaks <= 4 * seen.clamp(min=0.17)).all()
    assert find_outliers(norm_peaks(gain, shift)).tolist() == [5]
