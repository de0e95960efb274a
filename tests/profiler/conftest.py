"""One thread: the models here are so small that handing work to a second core costs more than the work."""

from __future__ import annotations

import importlib.util

if importlib.util.find_spec("torch") is not None:
    import torch

    torch.set_num_threads(1)
