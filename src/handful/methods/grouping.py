"""Support sets by class: what every method that compares a query with classes begins with."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.errors import HandfulError


def by_class(features: Tensor, labels: Tensor, way: int) -> tuple[Tensor, Tensor]:
    """Supports of B tasks in rows by class: features [B, S, ...], labels [B, S] -> [B, N, K, ...], counts [B, N].

    K is the most supports that any class has; a class with fewer has zeros after its own.  Supports keep their order
    within a class.  Of class-major balanced supports it is a view.  Raises HandfulError as `membership` does.
    """
    (tasks, size), shape = labels.shape, features.shape[2:]
    shot = size // way
    class_major = torch.arange(way, device=labels.device).repeat_interleave(shot)
    if 0 < size == way * shot and torch.equal(labels, class_major.expand_as(labels)):
        return features.unflatten(1, (way, shot)), labels.new_full((tasks, way), shot)
    member = membership(labels, way)
    counts = member.sum(1)
    most = int(counts.max())
    before = (member.cumsum(1) - member).gather(2, labels.unsqueeze(2)).squeeze(2)  # supports of its class, [B, S]
    places = (labels * most + before).view(tasks, size, *[1] * len(shape)).expand(-1, -1, *shape)
    grouped = features.new_zeros(tasks, way * most, *shape).scatter(1, places, features)
    return grouped.unflatten(1, (way, most)), counts


def membership(labels: Tensor, way: int) -> Tensor:
    """1 where a support is of a class: labels [B, S] -> int64 [B, S, N].

    Raises HandfulError for a label that is not below `way` and for a class without supports.
    """
    outside = labels[(labels < 0) | (labels >= way)]
    if len(outside):
        raise HandfulError(
            f"A support image has label {int(outside[0])}, but the labels of a {way}-way task are 0 to {way - 1}; "
            "number the classes of each task from 0, or set way to their number."
        )
    member = F.one_hot(labels, way)
    empty = (member.sum(1) == 0).nonzero()
    if len(empty):
        task, label = empty[0].tolist()
        raise HandfulError(
            f"Class {label} of task {task} has no support image, but each of the {way} classes needs at least 1; "
            "add one, or lower way."
        )
    return member
