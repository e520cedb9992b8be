"""PyTorch's way of every benched op, as bench/torch_ops.ts asks for it.

python3 ops.py --serve --kind ops --device cpu|cuda|cuda:N
"""

import argparse
import json

import torch
import torch.nn.functional as F

from dequantise import dequantise
from protocol import DTYPES, answer, device_facts, memory, open_device, serve, synchronize, versions
from sides import best_seconds, make_sides


def read(path, dtype=torch.float32):
    return torch.frombuffer(bytearray(open(path, "rb").read()), dtype=dtype)


class Inputs:
    """The files of a request on the device, in the dtype of the case."""

    def __init__(self, request, device):
        self.files = request["files"]
        self.device = device
        self.dtype = DTYPES[request["precision"]]

    def tensor(self, role, *shape, dtype=None):
        if role not in self.files:
            return None
        return read(self.files[role]).to(self.device).to(dtype or self.dtype).reshape(shape)

    def stored(self, role):
        return read(self.files[role], torch.uint8).to(self.device)


def rotating(tensor, copies):
    """Copies in memory of their own."""
    return [tensor.clone(memory_format=torch.preserve_format) for _ in range(copies)]


def linear_sides(request, inputs):
    m, n, k, copies = (request[name] for name in ("m", "n", "k", "copies"))
    x = inputs.tensor("x", m, k)
    weights = rotating(inputs.tensor("decoded", n, k), copies)
    finish = linear_epilogue(request, inputs)
    sides = {"torch.matmul": lambda i: finish(F.linear(x, weights[i % copies]))}
    if request["type"] not in ("F32", "F16", "BF16"):
        stored = rotating(inputs.stored("w"), copies)
        sides["torch dequantise + matmul"] = lambda i: finish(
            F.linear(x, dequantise(stored[i % copies], request["type"], (n, k), inputs.dtype))
        )
    return sides


def linear_epilogue(request, inputs):
    """The ops that follow the product, one after another as a PyTorch model writes them."""
    m, n, epilogue = request["m"], request["n"], request.get("epilogue")
    bias, add = inputs.tensor("bias", n), inputs.tensor("add", m, n)
    if epilogue == "gelu":
        return lambda y: F.gelu(y + bias, approximate="tanh")
    if epilogue == "gated":
        other = inputs.tensor("multiply", m, n)
        return lambda y: F.gelu(y, approximate="tanh") * other
    if epilogue == "residual":
        gate = inputs.tensor("multiply", 1, n)
        return lambda y: add + gate * (y + bias)
    return lambda y: y


def attention_sides(request, inputs):
    heads, width, tokens, copies = (request[name] for name in ("heads", "headDim", "tokens", "copies"))
    scale, causal = request["scale"], request["causal"]
    shape = (1, tokens, heads, width)
    triples = [
        rotating(inputs.tensor(role, *shape), copies) for role in ("q", "k", "v")
    ]
    bias = inputs.tensor("bias", 1, heads, tokens, tokens)

    def views(i):
        return [copies_of[i % copies].transpose(1, 2) for copies_of in triples]

    def rows(out):
        return out.transpose(1, 2).reshape(tokens, heads * width)

    def eager(i):
        q, k, v = views(i)
        scores = q @ k.transpose(2, 3) * scale
        if bias is not None:
            scores = scores + bias
        if causal:
            hidden = torch.ones(tokens, tokens, dtype=torch.bool, device=q.device).triu(1)
            scores = scores.masked_fill(hidden, float("-inf"))
        return rows(scores.softmax(-1) @ v)

    def sdpa(backend):
        def step(i):
            with torch.nn.attention.sdpa_kernel(backend):
                out = F.scaled_dot_product_attention(
                    *views(i), attn_mask=bias, is_causal=causal, scale=scale
                )
            return rows(out)

        return step

    return {"torch eager": eager, **{name: sdpa(backend) for name, backend in sdpa_backends().items()}, **no_sdpa()}


BACKENDS = {
    "SDPA flash": "FLASH_ATTENTION",
    "SDPA efficient": "EFFICIENT_ATTENTION",
    "SDPA cudnn": "CUDNN_ATTENTION",
    "SDPA math": "MATH",
}


def sdpa_backends():
    """By what this PyTorch has."""
    known = getattr(getattr(torch.nn, "attention", None), "SDPBackend", None)
    return {name: getattr(known, key) for name, key in BACKENDS.items() if hasattr(known, key)}


def no_sdpa():
    missing = [name for name in BACKENDS if name not in sdpa_backends()]
    return {name: f"not in PyTorch {torch.__version__}" for name in missing}


def conv_sides(request, inputs):
    height, width, channels, outputs = (request[name] for name in ("height", "width", "inputs", "outputs"))
    kernel, upscale, copies = request["kernel"], request["upscale"], request["copies"]
    # Rows of pixels are PyTorch's channels_last.
    images = rotating(inputs.tensor("x", 1, height, width, channels), copies)
    weight = inputs.tensor("w", outputs, kernel, kernel, channels).permute(0, 3, 1, 2)

    def step(i):
        x = images[i % copies].permute(0, 3, 1, 2)
        if upscale != 1:
            x = F.interpolate(x, scale_factor=upscale, mode="nearest")
        return F.conv2d(x, weight, padding=kernel // 2).permute(0, 2, 3, 1).reshape(-1, outputs)

    return {"torch conv2d": step}


def copy_sides(request, inputs):
    count, copies = max(1, request["bytes"] // 4), request["copies"]
    sources = [torch.randn(count, device=inputs.device) for _ in range(copies)]
    target = torch.empty(count, device=inputs.device)
    return {"copy": lambda i: target.copy_(sources[i % copies]).view(1, -1)}


OPS = {"linear": linear_sides, "attention": attention_sides, "conv2d": conv_sides, "copy": copy_sides}


class Bench:
    def __init__(self, device):
        self.device = device
        self.sides = {}

    def prepare(self, argument):
        self.sides = {}  # what the last case held goes first
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        request = json.loads(argument)
        try:
            candidates = OPS[request["op"]](request, Inputs(request, self.device))
        except torch.cuda.OutOfMemoryError as error:
            return {"sides": [{"name": "torch", "missing": str(error).splitlines()[0]}]}
        self.sides, answers = make_sides(candidates, request["copies"], self.device)
        return {"sides": answers}

    def sample(self, argument):
        request = json.loads(argument)
        out = self.sides[request["side"]].output()
        rows = torch.tensor(request["rows"], device=self.device)
        cols = torch.tensor(request["cols"], device=self.device)
        values = out[rows][:, cols].flatten().double().cpu()
        lost = int((~torch.isfinite(out)).sum())
        return {"values": [value if value == value else None for value in values.tolist()], "non_finite": lost}

    def run(self, argument):
        request = json.loads(argument)
        return {"seconds": self.sides[request["side"]].seconds(request["reps"])}

    def ceilings(self, argument):
        """The most that this device does through PyTorch: a copy past every cache, and a large product."""
        self.sides = {}
        on_gpu = self.device.type == "cuda"
        seconds = json.loads(argument)["seconds"]
        count = (1 << 30) if on_gpu else (1 << 24)
        source, target = (torch.randn(count, device=self.device) for _ in range(2))
        copy = best_seconds(lambda i: target.copy_(source), self.device, seconds)
        del source, target
        products = {}
        for name, dtype in DTYPES.items():
            try:
                products[name] = max(self._product(n, dtype, seconds) for n in ((4096, 8192) if on_gpu else (512,)))
            except RuntimeError:
                pass  # this device does not multiply in that precision
        return {"copyGbytes": 2 * 4 * count / copy / 1e9, "matmulTflops": products}

    def _product(self, n, dtype, seconds):
        a, b = (torch.randn(n, n, device=self.device).to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return 2 * n**3 / best_seconds(lambda i: torch.matmul(a, b, out=out), self.device, seconds) / 1e12


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--kind", choices=["ops"], required=True)
    parser.add_argument("--device", default="cuda")
    device = open_device(parser.parse_args().device)
    bench = Bench(device)
    synchronize(device)
    answer("ready", versions=versions(), **device_facts(device))
    serve(
        {
            "prepare": bench.prepare,
            "sample": bench.sample,
            "run": bench.run,
            "ceilings": bench.ceilings,
            "memory": lambda _: memory(device),
        }
    )


if __name__ == "__main__":
    main()
