"""A simulated GPU: tensors that say they are on `cuda`, are computed on the CPU, and refuse to meet the CPU's.

On a machine without a GPU this shows that nothing mixes devices, and that seeds mean the same there. It does not show what
only a GPU can: speed, memory, and the rounding of its kernels.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_map_only, tree_unflatten

GPU = torch.device("cuda:0")
# What torch's own code believes: a device that needs no driver.
_STAND_IN = torch.device("meta")
# A GPU's tensor may be indexed by the CPU's, and copied to or from it; single numbers go anywhere.
_MAY_MIX = ("index", "index_put_", "index_put", "_index_put_impl_", "copy_", "_to_copy")


class OnGPU(Tensor):
    """A tensor whose numbers are in `inner`."""

    inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGPU:
        made: OnGPU = torch.Tensor._make_wrapper_subclass(
            cls,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device=_STAND_IN,
        )
        made.inner = inner
        return made

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnGPU({self.inner!r})"

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return GPU

    @property
    def is_cuda(self) -> bool:  # type: ignore[override]
        return True

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copied = OnGPU(self.inner.detach().clone())
            is_parameter = isinstance(self, torch.nn.Parameter)
            memo[id(self)] = torch.nn.Parameter(copied, self.requires_grad) if is_parameter else copied
        found: Tensor = memo[id(self)]
        return found

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Devices(TorchFunctionMode):
    """Hides the name of the GPU from torch, which would look for a driver."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        args, kwargs = tree_map(_stand_in, (args, kwargs or {}))
        if getattr(func, "__name__", "") == "is_autocast_enabled":
            return False
        if func is torch.tensor and kwargs.get("device") == _STAND_IN:  # made without any operator
            return OnGPU(torch.tensor(*args, **{**kwargs, "device": "cpu"}))
        if func is Tensor.__getitem__ and isinstance(args[1], list):
            args = (args[0], torch.tensor(args[1]))
        return func(*args, **kwargs)


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


@contextmanager
def simulated_gpu() -> Iterator[None]:
    """While it lasts, `x.to("cuda")` works."""
    with _Devices(), _Operators():
        yield


def _stand_in(value: Any) -> Any:
    if isinstance(value, torch.device):
        return _STAND_IN if value.type == GPU.type else value
    return _STAND_IN if isinstance(value, str) and value == GPU.type else value


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    values, structure = tree_flatten((args, kwargs))
    ours = [value for value in values if isinstance(value, OnGPU)]
    name = func.overloadpacket.__name__
    others = [v for v in values if isinstance(v, Tensor) and not isinstance(v, OnGPU) and v.dim()]
    if ours and others and name not in _MAY_MIX:
        raise RuntimeError(f"{name}: expected all tensors to be on the same device, got cuda:0 and cpu")
    place = kwargs.get("device")
    goes_to_gpu = place.type == _STAND_IN.type if place is not None else bool(ours)
    if name == "copy_":
        goes_to_gpu = isinstance(args[0], OnGPU)
    plain = [value.inner if isinstance(value, OnGPU) else value for value in values]
    args, kwargs = tree_unflatten(plain, structure)
    if place is not None:
        kwargs["device"] = torch.device("cpu")
    out = func(*args, **kwargs)
    if not goes_to_gpu:
        return out
    known = {id(tensor.inner): tensor for tensor in ours}
    return tree_map_only(Tensor, lambda tensor: known[id(tensor)] if id(tensor) in known else OnGPU(tensor), out)
