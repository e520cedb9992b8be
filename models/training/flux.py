"""Flux.1 [schnell] in small: the transformer of black-forest-labs/flux with its field names.

Text and image tokens first have weights of their own (double blocks), then share them (single blocks); q and k are
RMS-normalised and rotated by position (arXiv:2104.09864), every block is modulated by time and CLIP's vector.
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {"in_channels": 64, "out_channels": 64, "vec_in_dim": 64, "context_in_dim": 128, "hidden_size": 128,
          "mlp_ratio": 4.0, "num_heads": 4, "depth": 2, "depth_single_blocks": 3, "axes_dim": [4, 14, 14],
          "theta": 10000, "qkv_bias": True, "guidance_embed": False}
STEPS = (1.0, 0.75, 0.5, 0.25, 0.0)


class Gelu(torch.autograd.Function):
    """0.5 x (1 + tanh(u)) = x sigmoid(2u); three times faster here than PyTorch 1.13's own on a CPU."""
    A, B = 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715

    @staticmethod
    def forward(ctx, x):
        gate = (x * x).mul_(Gelu.B).add_(Gelu.A).mul_(x).sigmoid_()
        ctx.save_for_backward(x, gate)
        return x * gate

    @staticmethod
    def backward(ctx, gradient):
        x, gate = ctx.saved_tensors
        slope = (x * x).mul_(3 * Gelu.B).add_(Gelu.A).mul_(x).mul_(1 - gate).add_(1).mul_(gate)
        return slope.mul_(gradient)


def gelu(x):
    return Gelu.apply(x) if x.device.type == "cpu" else F.gelu(x, approximate="tanh")


def sinusoid(t, width=256):
    """t [n] in 0..1 -> [n, width]: cosines, then sines, of 1000 t."""
    frequencies = torch.exp(-math.log(10000) * torch.arange(width // 2, device=t.device).double() / (width // 2))
    angles = 1000.0 * t.double()[:, None] * frequencies[None]
    return torch.cat([angles.cos(), angles.sin()], dim=-1).to(t.dtype)


def rotation(height, width, text, axes, theta, device="cpu"):
    """[text + height * width, sum(axes) / 2] complex: text stays where it is, image token (y, x) turns by its place."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    places = torch.stack([torch.zeros_like(x), y, x], dim=-1).view(-1, 3)
    places = torch.cat([torch.zeros(text, 3, dtype=places.dtype), places]).double()
    angles = [places[:, i, None] / theta**(torch.arange(0, axis, 2).double() / axis) for i, axis in enumerate(axes)]
    angles = torch.cat(angles, dim=-1)
    return torch.polar(torch.ones_like(angles), angles).to(torch.complex64).to(device)


def attend(qkv, scales, turns):
    """qkv [b, n, 3, heads, dim], scales [n or 1, 2, 1, dim], turns [n, dim / 2] complex -> [b, n, heads * dim]"""
    b, n, _, heads, dim = qkv.shape
    qk = qkv[:, :, :2]
    qk = qk * torch.rsqrt(qk.square().mean(-1, keepdim=True) + 1e-6) * scales
    qk = torch.view_as_complex(qk.reshape(b, n, 2, heads, dim // 2, 2)) * turns[:, None, None]
    qk = torch.view_as_real(qk).reshape(b, n, 2, heads, dim)
    q, k, v = qk[:, :, 0].transpose(1, 2), qk[:, :, 1].permute(0, 2, 3, 1), qkv[:, :, 2].transpose(1, 2)
    return (torch.softmax((q * dim**-0.5) @ k, dim=-1) @ v).transpose(1, 2).reshape(b, n, heads * dim)


def modulated(x, shift, scale):
    return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=1e-6), 1 + scale)


class Embedder(nn.Module):
    def __init__(self, width_in, width):
        super().__init__()
        self.in_layer, self.out_layer = nn.Linear(width_in, width), nn.Linear(width, width)

    def forward(self, x):
        return self.out_layer(F.silu(self.in_layer(x)))


class Scale(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))


class QKNorm(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.query_norm, self.key_norm = Scale(dim), Scale(dim)

    def scales(self):
        return torch.stack([self.query_norm.scale, self.key_norm.scale])[None, :, None]


class Attention(nn.Module):
    def __init__(self, width, heads, bias):
        super().__init__()
        self.qkv, self.proj = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width)
        self.norm = QKNorm(width // heads)


class Modulation(nn.Module):
    def __init__(self, width, parts):
        super().__init__()
        self.parts, self.lin = parts, nn.Linear(width, parts * width)

    def forward(self, vec):
        return self.lin(F.silu(vec))[:, None].chunk(self.parts, dim=-1)


class DoubleBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, self.heads, inner = c["hidden_size"], c["num_heads"], int(c["hidden_size"] * c["mlp_ratio"])
        for side in ("img", "txt"):
            setattr(self, f"{side}_mod", Modulation(width, 6))
            setattr(self, f"{side}_attn", Attention(width, self.heads, c["qkv_bias"]))
            mlp = nn.Sequential(nn.Linear(width, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, width))
            setattr(self, f"{side}_mlp", mlp)

    def forward(self, img, txt, vec, turns):
        sides, qkv, scales = [], [], []
        for x, mod, attn in ((txt, self.txt_mod, self.txt_attn), (img, self.img_mod, self.img_attn)):
            parts = mod(vec)
            qkv.append(attn.qkv(modulated(x, parts[0], parts[1])).view(*x.shape[:2], 3, self.heads, -1))
            scales.append(attn.norm.scales().expand(x.shape[1], -1, -1, -1))
            sides.append(parts)
        mixed = attend(torch.cat(qkv, dim=1), torch.cat(scales), turns).split([txt.shape[1], img.shape[1]], dim=1)
        out = []
        for x, y, parts, attn, mlp in ((txt, mixed[0], sides[0], self.txt_attn, self.txt_mlp),
                                       (img, mixed[1], sides[1], self.img_attn, self.img_mlp)):
            x = torch.addcmul(x, parts[2], attn.proj(y))
            out.append(torch.addcmul(x, parts[5], mlp[2](gelu(mlp[0](modulated(x, parts[3], parts[4]))))))
        return out[1], out[0]


class SingleBlock(nn.Module):
    def __init__(self, c):
        super().__init__()
        width, self.heads, self.inner = c["hidden_size"], c["num_heads"], int(c["hidden_size"] * c["mlp_ratio"])
        self.linear1, self.linear2 = nn.Linear(width, 3 * width + self.inner), nn.Linear(width + self.inner, width)
        self.norm, self.modulation = QKNorm(width // self.heads), Modulation(width, 3)

    def forward(self, x, vec, turns):
        shift, scale, gate = self.modulation(vec)
        qkv, mlp = self.linear1(modulated(x, shift, scale)).split([3 * x.shape[-1], self.inner], dim=-1)
        mixed = attend(qkv.reshape(*x.shape[:2], 3, self.heads, -1), self.norm.scales(), turns)
        return torch.addcmul(x, gate, self.linear2(torch.cat([mixed, gelu(mlp)], dim=-1)))


class FinalLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.linear = nn.Linear(c["hidden_size"], c["out_channels"])
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(c["hidden_size"], 2 * c["hidden_size"]))

    def forward(self, x, vec):
        shift, scale = self.adaLN_modulation(vec)[:, None].chunk(2, dim=-1)
        return self.linear(modulated(x, shift, scale))


class Flux(nn.Module):
    def __init__(self, config=CONFIG):
        super().__init__()
        self.config, c = dict(config), config
        width = c["hidden_size"]
        self.img_in, self.txt_in = nn.Linear(c["in_channels"], width), nn.Linear(c["context_in_dim"], width)
        self.time_in, self.vector_in = Embedder(256, width), Embedder(c["vec_in_dim"], width)
        self.double_blocks = nn.ModuleList(DoubleBlock(c) for _ in range(c["depth"]))
        self.single_blocks = nn.ModuleList(SingleBlock(c) for _ in range(c["depth_single_blocks"]))
        self.final_layer = FinalLayer(c)
        self.turns = {}

    def forward(self, img, t, txt, y, grid=(4, 4)):
        """img [b, h*w, 64], t [b], txt [b, n, context], y [b, vec] -> velocity (noise minus picture), as img."""
        key = (*grid, txt.shape[1], img.device)
        if key not in self.turns:
            self.turns[key] = rotation(*grid, txt.shape[1], self.config["axes_dim"], self.config["theta"], img.device)
        turns = self.turns[key]
        vec = self.time_in(sinusoid(t)) + self.vector_in(y)
        img, txt = self.img_in(img), self.txt_in(txt)
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, turns)
        x, text = torch.cat([txt, img], dim=1), txt.shape[1]
        for block in self.single_blocks:
            x = block(x, vec, turns)
        return self.final_layer(x[:, text:], vec)


def pack(latents):
    """[b, c, 2h, 2w] -> [b, h*w, c*4], features in the order channel, row, column."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 2, 4, 1, 3, 5).reshape(b, h * w // 4, c * 4)


def unpack(tokens, height, width):
    b, _, features = tokens.shape
    x = tokens.view(b, height, width, features // 4, 2, 2).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(b, features // 4, 2 * height, 2 * width)


@torch.no_grad()
def sample(model, noise, txt, y, steps=STEPS):
    """Euler along the straight path from noise (t = 1) to the picture's latents; tokens in, tokens out."""
    x = noise
    for t, after in zip(steps, steps[1:]):
        x = x + (after - t) * model(x, torch.full((len(x),), t, device=x.device), txt, y)
    return x


def initialise(model):
    """Modulation starts at the identity with open gates, residual branches at half, attention sharp enough to differ
    between tokens, the output at zero."""
    for module in model.modules():
        if isinstance(module, (Modulation, FinalLayer)):
            lin = module.lin if isinstance(module, Modulation) else module.adaLN_modulation[1]
            nn.init.zeros_(lin.weight)
            nn.init.zeros_(lin.bias)
            if isinstance(module, Modulation):
                width = lin.in_features
                for part in range(2, module.parts, 3):
                    lin.bias.data[part * width:(part + 1) * width] = 1
        elif isinstance(module, Embedder):
            for lin in (module.in_layer, module.out_layer):
                nn.init.normal_(lin.weight, std=(2 / lin.in_features)**0.5)
                nn.init.zeros_(lin.bias)
        elif isinstance(module, DoubleBlock):
            for side in ("img", "txt"):
                start_attention(getattr(module, f"{side}_attn").qkv, module)
                for lin in (getattr(module, f"{side}_attn").proj, getattr(module, f"{side}_mlp")[2]):
                    lin.weight.data *= 0.5
        elif isinstance(module, SingleBlock):
            start_attention(module.linear1, module)
            module.linear2.weight.data *= 0.5
    for lin in (model.img_in, model.txt_in):
        nn.init.normal_(lin.weight, std=lin.in_features**-0.5)
    nn.init.zeros_(model.final_layer.linear.weight)
    nn.init.zeros_(model.final_layer.linear.bias)


def start_attention(qkv, block):
    width = qkv.in_features
    nn.init.normal_(qkv.bias.data[:width], std=1.0)
    nn.init.normal_(qkv.bias.data[width:2 * width], std=0.5)
