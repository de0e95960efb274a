"""Page-locked host memory as the GPU's own kernels see it.

A copy from the host waits its turn behind all others in the same direction: a batch's few index numbers behind a
gigabyte of contexts on their way in. A kernel that reads the host's memory does not wait for copies.
"""

from __future__ import annotations

from typing import Any

import torch


class _Address:
    """A tensor's memory, described as memory of the GPU: page-locked memory has one address for both."""

    def __init__(self, host: torch.Tensor) -> None:
        self._host = host
        self.__cuda_array_interface__: dict[str, Any] = {
            "shape": tuple(host.shape),
            "typestr": "<i4",
            "data": (host.data_ptr(), False),
            "strides": None,
            "version": 3,
        }


class MappedCopy:
    """Copies the first numbers of ``host``, int32 and page-locked, to ``device`` by a kernel."""

    def __init__(self, host: torch.Tensor, device: torch.Tensor) -> None:
        assert host.is_pinned() and host.is_contiguous() and host.dtype == torch.int32
        self._seen, self._device = torch.as_tensor(_Address(host), device=device.device), device
        assert self._seen.data_ptr() == host.data_ptr(), "the driver gave page-locked memory a second address"

    def __call__(self, numbers: int) -> None:
        """Queue the copy on the current stream."""
        torch.add(self._seen[:numbers], 0, out=self._device[:numbers])
