"""Flux.1's transformer as a plain PyTorch model with random weights, for its time alone (bench/step_peer.ts).

python3 flux.py --serve --kind flux --text-tokens T --image-tokens I [--device cuda] [--compile MODE]
  [--depth 19 --single 38 --hidden 3072 --heads 24]

Block structure after black-forest-labs/flux: adaptive norms, qk-norm, rotary positions, SDPA. With --compile its blocks go
through torch.compile, each kind compiled once. A run evaluates the model so many times.
"""

import argparse
import contextlib
import time

import torch
import torch.nn.functional as F
from torch import nn

from protocol import DTYPES, answer, device_facts, memory, open_device, serve, synchronize, versions

AXES = (16, 56, 56)


def attend(q, k, v):
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v)
    return (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(-1) @ v


def rotate(x, rotation):
    """x [batch, heads, tokens, width], pairs (2 i, 2 i + 1); rotation [tokens, width / 2, 2, 2]"""
    pairs = x.float().unflatten(-1, (-1, 1, 2))
    out = rotation[..., 0] * pairs[..., 0] + rotation[..., 1] * pairs[..., 1]
    return out.flatten(-2).to(x.dtype)


def rotations(positions, width, device):
    """[tokens, 3] positions → [tokens, width / 2, 2, 2]; a narrow head takes the first axes' share."""
    shares = AXES if width == sum(AXES) else (width,)
    angles = []
    for axis, share in enumerate(shares):
        steps = torch.arange(0, share, 2, device=device, dtype=torch.float64) / share
        angles.append(positions[:, axis : axis + 1].double() * 10000.0 ** -steps)
    angles = torch.cat(angles, -1)
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((torch.stack((cos, -sin), -1), torch.stack((sin, cos), -1)), -2).float()


class HeadNorm(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x):
        root = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + 1e-6)
        return (x.float() * root).to(x.dtype) * self.scale


class Modulation(nn.Module):
    def __init__(self, hidden, count):
        super().__init__()
        self.count = count
        self.lin = nn.Linear(hidden, count * hidden)

    def forward(self, vec):
        return self.lin(F.silu(vec))[:, None, :].chunk(self.count, -1)


class Stream(nn.Module):
    """The half of a double block that belongs to the image or to the text."""

    def __init__(self, hidden, heads):
        super().__init__()
        self.heads = heads
        self.mod = Modulation(hidden, 6)
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.qkv = nn.Linear(hidden, 3 * hidden)
        self.query_norm, self.key_norm = HeadNorm(hidden // heads), HeadNorm(hidden // heads)
        self.proj = nn.Linear(hidden, hidden)
        self.mlp = nn.Sequential(
            nn.Linear(hidden, 4 * hidden), nn.GELU(approximate="tanh"), nn.Linear(4 * hidden, hidden)
        )

    def projections(self, x, shift, scale):
        qkv = self.qkv((1 + scale) * self.norm(x) + shift)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.query_norm(q), self.key_norm(k), v

    def finish(self, x, mixed, parts):
        _, _, gate, shift, scale, mlp_gate = parts
        x = x + gate * self.proj(mixed)
        return x + mlp_gate * self.mlp((1 + scale) * self.norm(x) + shift)


class DoubleBlock(nn.Module):
    def __init__(self, hidden, heads):
        super().__init__()
        self.img, self.txt = Stream(hidden, heads), Stream(hidden, heads)

    def forward(self, img, txt, vec, rotation):
        img_parts, txt_parts = self.img.mod(vec), self.txt.mod(vec)
        both = zip(self.txt.projections(txt, *txt_parts[:2]), self.img.projections(img, *img_parts[:2]))
        q, k, v = (torch.cat(pair, 2) for pair in both)
        mixed = attend(rotate(q, rotation), rotate(k, rotation), v).transpose(1, 2).flatten(2)
        tokens = txt.shape[1]
        txt = self.txt.finish(txt, mixed[:, :tokens], txt_parts)
        return self.img.finish(img, mixed[:, tokens:], img_parts), txt


class SingleBlock(nn.Module):
    def __init__(self, hidden, heads):
        super().__init__()
        self.heads, self.hidden = heads, hidden
        self.modulation = Modulation(hidden, 3)
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.linear1 = nn.Linear(hidden, 7 * hidden)
        self.linear2 = nn.Linear(5 * hidden, hidden)
        self.query_norm, self.key_norm = HeadNorm(hidden // heads), HeadNorm(hidden // heads)

    def forward(self, x, vec, rotation):
        shift, scale, gate = self.modulation(vec)
        qkv, mlp = self.linear1((1 + scale) * self.norm(x) + shift).split((3 * self.hidden, 4 * self.hidden), -1)
        q, k, v = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = rotate(self.query_norm(q), rotation), rotate(self.key_norm(k), rotation)
        mixed = attend(q, k, v).transpose(1, 2).flatten(2)
        return x + gate * self.linear2(torch.cat((mixed, F.gelu(mlp, approximate="tanh")), -1))


class VectorMlp(nn.Sequential):
    def __init__(self, inputs, hidden):
        super().__init__(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, hidden))


class Flux(nn.Module):
    def __init__(self, hidden, heads, depth, single):
        super().__init__()
        self.width = hidden // heads
        self.img_in, self.txt_in = nn.Linear(64, hidden), nn.Linear(4096, hidden)
        self.time_in, self.vector_in = VectorMlp(256, hidden), VectorMlp(768, hidden)
        self.double_blocks = nn.ModuleList(DoubleBlock(hidden, heads) for _ in range(depth))
        self.single_blocks = nn.ModuleList(SingleBlock(hidden, heads) for _ in range(single))
        self.final_mod = Modulation(hidden, 2)
        self.norm = nn.LayerNorm(hidden, elementwise_affine=False, eps=1e-6)
        self.final = nn.Linear(hidden, 64)

    def forward(self, img, txt, time_wave, pooled, rotation):
        vec = self.time_in(time_wave) + self.vector_in(pooled)
        img, txt = self.img_in(img), self.txt_in(txt)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, rotation)
        x = torch.cat((txt, img), 1)
        for block in self.single_blocks:
            x = block(x, vec, rotation)
        shift, scale = self.final_mod(vec)
        return self.final((1 + scale) * self.norm(x[:, txt.shape[1] :]) + shift)


def made_without_values():
    """Modules on the meta device, where this PyTorch can: their memory comes later, on the GPU."""
    return torch.device("meta") if hasattr(torch.device, "__enter__") else contextlib.nullcontext()


def random_flux(options, device, dtype):
    """Every block has weights of its own, as a real one: their reading is a part of the time."""
    with made_without_values():
        model = Flux(options.hidden, options.heads, options.depth, options.single).to(dtype)
    model = model.to_empty(device=device)
    for name, parameter in model.named_parameters():
        if name.endswith("norm.scale"):
            parameter.fill_(1)
        else:  # a matrix keeps its input's size; biases are small
            parameter.normal_(0, parameter.shape[-1] ** -0.5 if parameter.ndim > 1 else 0.02)
    if options.compile:
        for blocks in (model.double_blocks, model.single_blocks):
            for block in blocks:
                block.compile(mode=options.compile)
    return model


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--kind", choices=["flux"], required=True)
    parser.add_argument("--text-tokens", type=int, required=True)
    parser.add_argument("--image-tokens", type=int, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=list(DTYPES), default="bf16")
    parser.add_argument("--compile", metavar="MODE", help="default, max-autotune-no-cudagraphs, …")
    for name, default in (("depth", 19), ("single", 38), ("hidden", 3072), ("heads", 24)):
        parser.add_argument(f"--{name}", type=int, default=default)
    return parser.parse_args()


class Bench:
    def __init__(self, options):
        self.device = open_device(options.device)
        torch.manual_seed(1)
        dtype = DTYPES[options.precision]
        self.model = random_flux(options, self.device, dtype)
        normal = lambda *shape: torch.randn(1, *shape, device=self.device, dtype=dtype)  # noqa: E731
        tokens = options.text_tokens + options.image_tokens
        positions = torch.zeros(tokens, 3, device=self.device)
        side = max(1, round(options.image_tokens**0.5))
        image = torch.arange(options.image_tokens, device=self.device)
        positions[options.text_tokens :, 1] = image // side
        positions[options.text_tokens :, 2] = image % side
        self.inputs = (
            normal(options.image_tokens, 64),
            normal(options.text_tokens, 4096),
            normal(256),
            normal(768),
            rotations(positions, options.hidden // options.heads, self.device),
        )

    def run(self, argument):
        count = int(argument)
        synchronize(self.device)
        start = time.perf_counter()
        for _ in range(count):
            out = self.model(*self.inputs)
        synchronize(self.device)
        seconds = time.perf_counter() - start
        if not bool(torch.isfinite(out).all()):
            raise ArithmeticError("the model's output is not finite")
        return {"seconds": seconds, "evaluations": count, **memory(self.device)}


def main():
    options = parse_options()
    bench = Bench(options)
    how = f"torch.compile ({options.compile})" if options.compile else "eager"
    answer(
        "ready",
        description=f"plain PyTorch {torch.__version__}, {how}, {options.precision}",
        versions=versions(),
        **device_facts(bench.device),
    )
    serve({"run": bench.run})


if __name__ == "__main__":
    main()
