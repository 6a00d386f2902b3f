"""`torchrun` -> one process among several: who it is, its share of a batch, and batch norm over the whole of it.

Every process draws the same random batch and works on its slice, so that the result is that of one process.
Without torchrun everything here is a world of one. NCCL where there are GPUs, gloo on CPUs.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_f
from torch import nn

from hwr_export.errors import UsageError


@contextmanager
def process_group() -> Iterator[tuple[int, int]]:
    """Join torchrun's group for the time of the block and yield (rank, world size)."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if cuda else "gloo", timeout=timedelta(minutes=10))
    try:
        yield dist.get_rank(), world
    finally:
        dist.destroy_process_group()


def share(n: int, rank: int, world: int) -> slice:
    """Return this process's slice of a batch of n."""
    return slice(n * rank // world, n * (rank + 1) // world)


def check_batch(batch_size: int, world: int) -> None:
    """Refuse a global batch that does not divide evenly.

    Raises:
        UsageError: it does not.
    """
    if batch_size % world:
        raise UsageError(f"batch_size {batch_size} is the batch of all processes and must be a multiple of {world}")


def parallel(network: nn.Module, world: int) -> nn.Module:
    """Return what to call in the forward pass: the network itself, or its data-parallel wrapper."""
    if world == 1 or not any(p.requires_grad for p in network.parameters()):
        return network
    return nn.parallel.DistributedDataParallel(network, broadcast_buffers=False)


def synchronise_batch_norm(network: nn.Module, world: int) -> nn.Module:
    """Make every 2-d batch norm normalise over the batch of all processes; keys and values stay."""
    if world == 1:
        return network
    if next(network.parameters()).is_cuda:
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = CrossProcessBatchNorm2d
    return network


class CrossProcessBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose statistics are those of all processes' images (torch has one for GPUs only)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training or not dist.is_initialized():
            return super().forward(x)
        wide = x.float()
        count = wide.numel() / wide.shape[1] * dist.get_world_size()
        sums = torch.stack([wide.sum((0, 2, 3)), wide.square().sum((0, 2, 3))])
        mean, square = dist_f.all_reduce(sums) / count
        variance = square - mean.square()
        with torch.no_grad():
            momentum = self.momentum if self.momentum is not None else 0.1
            self.running_mean.lerp_(mean, momentum)
            self.running_var.lerp_(variance * count / (count - 1), momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * (variance + self.eps).rsqrt()
        return (wide * scale.view(1, -1, 1, 1) + (self.bias - mean * scale).view(1, -1, 1, 1)).to(x.dtype)


def from_first(value: Any) -> Any:
    """Return process 0's value in every process, so that all take the same decision."""
    if not dist.is_initialized():
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def mean_of_all(value: float) -> float:
    """Return the mean of a number over all processes."""
    if not dist.is_initialized():
        return value
    box = torch.tensor(value, dtype=torch.float64, device="cuda" if dist.get_backend() == "nccl" else "cpu")
    dist.all_reduce(box)
    return float(box) / dist.get_world_size()
