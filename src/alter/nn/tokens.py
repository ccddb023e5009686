"""One vector per row out of its tokens: the mean, the first, the last.

Shapes: B rows, S tokens, D width.
"""

from __future__ import annotations

import torch


def mean_over_tokens(x_BSD: torch.Tensor, mask_BS: torch.Tensor | None) -> torch.Tensor:
    """Return the mean over the tokens that are no padding, (B, D)."""
    if mask_BS is None:
        return x_BSD.mean(dim=1)
    mask_BS1 = mask_BS.unsqueeze(-1).to(x_BSD.dtype)
    return (x_BSD * mask_BS1).sum(dim=1) / mask_BS1.sum(dim=1).clamp_min(1)


def first_token(x_BSD: torch.Tensor, mask_BS: torch.Tensor | None) -> torch.Tensor:
    """Return each row's first token that is no padding (rows may be padded on the left), (B, 1, D)."""
    if mask_BS is None:
        return x_BSD[:, :1]
    return _at(x_BSD, mask_BS.to(torch.int32).argmax(dim=1))


def last_token(x_BSD: torch.Tensor, mask_BS: torch.Tensor | None) -> torch.Tensor:
    """Return each row's last token that is no padding, (B, 1, D)."""
    if mask_BS is None:
        return x_BSD[:, -1:]
    return _at(x_BSD, mask_BS.shape[1] - 1 - mask_BS.to(torch.int32).flip(1).argmax(dim=1))


def _at(x_BSD: torch.Tensor, position_B: torch.Tensor) -> torch.Tensor:
    return x_BSD.gather(1, position_B[:, None, None].expand(-1, 1, x_BSD.shape[-1]))
