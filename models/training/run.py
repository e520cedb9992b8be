"""What every stage of training shares: its folder, its clock, its log, its checkpoints, the average of its weights."""
import copy
import json
import math
import os
import time
from pathlib import Path

import torch


class Run:
    """One stage that ends after `minutes`; with resume it goes on where the newest checkpoint stopped."""

    def __init__(self, folder, name, minutes, device="cpu", every=20.0):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.name, self.seconds, self.device, self.every = name, minutes * 60, device, every
        self.start = self.said = self.saved = time.time()
        self.steps = self.samples = self.samples_said = 0

    @property
    def progress(self):
        """0 at the start, 1 at the end."""
        return min(1.0, (time.time() - self.start) / self.seconds)

    def over(self):
        return self.progress >= 1

    def learning_rate(self, peak, warm_steps=200, constant=0.0):
        """Warm-up, then `constant` of the time at the peak, then half a cosine."""
        falling = max(0.0, (self.progress - constant) / (1 - constant))
        warm = min(1.0, (self.steps + 1) / warm_steps)
        return peak * warm * (0.01 + 0.99 * (0.5 + 0.5 * math.cos(math.pi * falling)))

    def step(self, samples, **figures):
        self.steps += 1
        self.samples += samples
        now = time.time()
        if now - self.said > self.every:
            rate = (self.samples - self.samples_said) / (now - self.said)
            self.said, self.samples_said = now, self.samples
            self.log(samples_per_second=round(rate, 1), **{k: float(v) for k, v in figures.items()})

    def log(self, **figures):
        line = {"stage": self.name, "seconds": round(time.time() - self.start), "step": self.steps,
                "samples": self.samples, **figures}
        with open(self.folder / f"{self.name}.jsonl", "a") as out:
            out.write(json.dumps(line, default=float) + "\n")
        print(json.dumps(line, default=float), flush=True)

    def checkpoint_due(self, seconds=120):
        if time.time() - self.saved < seconds:
            return False
        self.saved = time.time()
        return True

    def save(self, **parts):
        save(self.folder / f"{self.name}.pt", {**parts, "steps": self.steps, "samples": self.samples})

    def resume(self):
        """The newest checkpoint, or None; takes over its counters."""
        path = self.folder / f"{self.name}.pt"
        if not path.exists():
            return None
        state = torch.load(path, map_location=self.device)
        self.steps, self.samples = state["steps"], state["samples"]
        self.samples_said = self.samples
        return state


def save(path, value):
    """Atomic: a reader sees the old file or the new one."""
    torch.save(value, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


class Average:
    """Exponential moving average of a model's weights; shorter memory at the start."""

    def __init__(self, model, decay):
        self.model, self.decay, self.steps = copy.deepcopy(model).eval().requires_grad_(False), decay, 0

    @torch.no_grad()
    def update(self, model):
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        ours, theirs = list(self.model.parameters()), list(model.parameters())
        torch._foreach_mul_(ours, decay)
        torch._foreach_add_(ours, theirs, alpha=1 - decay)


def set_learning_rate(optimiser, rate):
    for group in optimiser.param_groups:
        group["lr"] = rate


def clipped_step(optimiser, parameters, limit=1.0):
    """A step that a broken batch (gradient not finite) does not take."""
    norm = torch.nn.utils.clip_grad_norm_(parameters, limit)
    if torch.isfinite(norm):
        optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    return norm
