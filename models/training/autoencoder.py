"""Flux's autoencoder, the KL autoencoder of arXiv:2112.10752 with 16 latent channels and
the field names of ae.safetensors."""
import torch
import torch.nn.functional as F
from torch import nn

CONFIG = {"resolution": 64, "in_channels": 3, "ch": 32, "out_ch": 3, "ch_mult": [1, 1, 2, 2], "num_res_blocks": 1,
          "z_channels": 16, "num_groups": 8}


class Norm(nn.GroupNorm):
    def __init__(self, channels, groups):
        super().__init__(groups, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    def __init__(self, cin, cout, groups):
        super().__init__()
        self.norm1, self.conv1 = Norm(cin, groups), nn.Conv2d(cin, cout, 3, padding=1)
        self.norm2, self.conv2 = Norm(cout, groups), nn.Conv2d(cout, cout, 3, padding=1)
        if cin != cout:
            self.nin_shortcut = nn.Conv2d(cin, cout, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return h + (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x)


class AttnBlock(nn.Module):
    def __init__(self, channels, groups):
        super().__init__()
        self.norm = Norm(channels, groups)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        b, c, h, w = x.shape
        y = self.norm(x)
        q, k, v = (f(y).reshape(b, c, h * w) for f in (self.q, self.k, self.v))
        weights = torch.softmax(q.transpose(1, 2) @ k * c**-0.5, dim=-1)
        return x + self.proj_out((v @ weights.transpose(1, 2)).reshape(b, c, h, w))


class Downsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x):
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def middle(channels, groups):
    mid = nn.Module()
    mid.block_1, mid.block_2 = (ResnetBlock(channels, channels, groups) for _ in range(2))
    mid.attn_1 = AttnBlock(channels, groups)
    return mid


def run_middle(mid, h):
    return mid.block_2(mid.attn_1(mid.block_1(h)))


def stage(cin, cout, blocks, groups):
    level = nn.Module()
    level.block = nn.ModuleList(ResnetBlock(cin if i == 0 else cout, cout, groups) for i in range(blocks))
    return level


class Encoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        groups, blocks = config.get("num_groups", 32), config["num_res_blocks"]
        widths = [config["ch"] * m for m in config["ch_mult"]]
        self.conv_in = nn.Conv2d(config["in_channels"], config["ch"], 3, padding=1)
        self.down = nn.ModuleList(stage(a, b, blocks, groups) for a, b in zip([config["ch"], *widths], widths))
        for level, width in zip(self.down[:-1], widths):
            level.downsample = Downsample(width)
        self.mid = middle(widths[-1], groups)
        self.norm_out = Norm(widths[-1], groups)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config["z_channels"], 3, padding=1)

    def forward(self, x):
        h = self.conv_in(x)
        for level in self.down:
            for block in level.block:
                h = block(h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
        return self.conv_out(F.silu(self.norm_out(run_middle(self.mid, h))))


class Decoder(nn.Module):
    def __init__(self, config):
        super().__init__()
        groups, blocks = config.get("num_groups", 32), config["num_res_blocks"] + 1
        widths = [config["ch"] * m for m in config["ch_mult"]]
        self.conv_in = nn.Conv2d(config["z_channels"], widths[-1], 3, padding=1)
        self.mid = middle(widths[-1], groups)
        self.up = nn.ModuleList(stage(a, b, blocks, groups) for a, b in zip([*widths[1:], widths[-1]], widths))
        for level, width in zip(self.up[1:], widths[1:]):
            level.upsample = Upsample(width)
        self.norm_out = Norm(widths[0], groups)
        self.conv_out = nn.Conv2d(widths[0], config["out_ch"], 3, padding=1)

    def forward(self, z):
        h = run_middle(self.mid, self.conv_in(z))
        for level in reversed(self.up):
            for block in level.block:
                h = block(h)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        return self.conv_out(F.silu(self.norm_out(h)))


class AutoEncoder(nn.Module):
    """encode gives latents with zero mean and unit variance, as Flux sees them; `config` holds scale and shift."""

    def __init__(self, config=CONFIG):
        super().__init__()
        self.config = dict(config)
        self.config.setdefault("scale_factor", 1.0)
        self.config.setdefault("shift_factor", 0.0)
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    def moments(self, x):
        return self.encoder(x).chunk(2, dim=1)

    def encode(self, x):
        return (self.moments(x)[0] - self.config["shift_factor"]) * self.config["scale_factor"]

    def decode(self, latents):
        return self.decoder(latents / self.config["scale_factor"] + self.config["shift_factor"])


def initialise(model):
    """Every residual branch starts at zero and every resampling convolution near the identity: without this a model
    of this size does not begin to learn."""
    for module in model.modules():
        if isinstance(module, ResnetBlock):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
        elif isinstance(module, AttnBlock):
            nn.init.zeros_(module.proj_out.weight)
            nn.init.zeros_(module.proj_out.bias)
        elif isinstance(module, (Downsample, Upsample)):
            nn.init.dirac_(module.conv.weight)
            module.conv.weight.data += 0.02 * torch.randn_like(module.conv.weight)
            nn.init.zeros_(module.conv.bias)
    model.encoder.conv_out.bias.data[model.config["z_channels"]:] = -5
