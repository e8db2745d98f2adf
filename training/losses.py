"""Losses on the labels of rows, of which some are missing. All are sums, to be divided by `total_weight`."""

import torch
from torch import Tensor
from torch.nn.functional import smooth_l1_loss

BETA = 0.5  # the value that Seitzer et al. recommend
LOG_VARIANCE_LIMIT = 7.0  # of a normalised target: a deviation between 0.03 and 33 of its spread


def total_weight(wanted: Tensor, weights: Tensor) -> Tensor:
    """Return the summed weight of the labels that are known, or 1 where none is.

    Parameters
    ----------
    wanted : float32 [B, T]
        NaN where not known.
    weights : float32 [T]
        Of each target; only their ratios count once a loss is divided by this.
    """
    total = (torch.isfinite(wanted) * weights).sum()
    return torch.where(total > 0, total, torch.ones_like(total))


def huber(found: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted sum of Huber's loss over known labels; arguments as in `total_weight`, `found` float32 [B, T]."""
    known = torch.isfinite(wanted)
    each = smooth_l1_loss(found, torch.where(known, wanted, found.detach()), reduction="none")
    return (each * weights).sum()


def beta_gaussian(found: Tensor, log_variance: Tensor, wanted: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted Gaussian negative log likelihood summed over known labels, without its constant.

    Each label counts by its predicted variance to the power of `BETA`, which is not differentiated: under the
    plain likelihood a network that fits badly calls those labels noise and stops learning their mean (Seitzer
    et al. 2022, arXiv 2203.09168, equation 5).

    Parameters
    ----------
    found, log_variance : float32 [B, T]
    wanted, weights
        As in `total_weight`.
    """
    known = torch.isfinite(wanted)
    error = found - torch.where(known, wanted, found.detach())
    each = 0.5 * (log_variance + error**2 * torch.exp(-log_variance))
    return (each * torch.exp(BETA * log_variance.detach()) * known * weights).sum()


def bounded_log_variance(raw: Tensor) -> Tensor:
    """Keep a logarithm of variance within `LOG_VARIANCE_LIMIT`, with a slope everywhere."""
    return LOG_VARIANCE_LIMIT * torch.tanh(raw / LOG_VARIANCE_LIMIT)
