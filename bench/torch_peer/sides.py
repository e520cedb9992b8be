"""Ways to do one op that can be timed: run over rotating inputs, recorded as a CUDA graph where the device has them, so
that neither Python nor launches are what is measured."""

import time

import torch

from protocol import synchronize


class Side:
    """`step(i)` enqueues one repetition on input copy i and returns its output, [rows, columns]."""

    def __init__(self, name, step, copies, device):
        self.name = name
        self.device = device
        self._step = step
        self._graph = None
        self.unit = 1
        self.launched = None
        step(0)
        synchronize(device)
        if device.type == "cuda":
            try:
                self._record(copies)
            except RuntimeError as error:  # what cannot be recorded is launched one by one, and says so
                torch.cuda.synchronize(device)
                self.launched = f"not recorded: {error}".splitlines()[0][:200]

    def _record(self, copies):
        # PyTorch wants a few passes on a side stream before a capture.
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for i in range(min(copies, 3)):
                self._step(i)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            for i in range(copies):
                self._step(i)
        self._graph = graph
        self.unit = copies

    def output(self):
        """Of the first copy, F32."""
        out = self._step(0).float()
        synchronize(self.device)
        return out

    def seconds(self, reps):
        synchronize(self.device)
        start = time.perf_counter()
        if self._graph is not None:
            for _ in range(max(1, reps // self.unit)):
                self._graph.replay()
        else:
            for i in range(reps):
                self._step(i)
        synchronize(self.device)
        return time.perf_counter() - start


def make_sides(candidates, copies, device):
    """name → step, or a reason why there is none. A step that fails is missing, with what it said."""
    sides, answers = {}, []
    for name, step in candidates.items():
        reason = step if isinstance(step, str) else None
        if reason is None:
            try:
                sides[name] = Side(name, step, copies, device)
                answers.append({"name": name, "unit": sides[name].unit, "launched": sides[name].launched})
                continue
            except (RuntimeError, NotImplementedError, ValueError) as error:
                reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        answers.append({"name": name, "missing": reason})
    return sides, answers


def best_seconds(step, device, seconds):
    """The median time of one step over about that long."""
    for i in range(3):
        step(i)
    readings = []
    end = time.perf_counter() + seconds
    while len(readings) < 5 or time.perf_counter() < end:
        synchronize(device)
        start = time.perf_counter()
        step(len(readings))
        synchronize(device)
        readings.append(time.perf_counter() - start)
    return sorted(readings)[len(readings) // 2]
