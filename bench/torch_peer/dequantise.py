"""GGUF's quantised types expanded by PyTorch's own ops, a tensor op for every step, as ComfyUI's GGUF loader works."""

import functools

import torch


@functools.lru_cache(maxsize=None)
def _constant(values, dtype, device):
    """Made once: a graph may not copy from the host while it is recorded."""
    return torch.tensor(values, dtype=dtype, device=device)


def _f16(blocks, at, dtype):
    return blocks[:, at : at + 2].contiguous().view(torch.float16).to(dtype)


def _nibbles(packed):
    """[.., n] bytes → [.., 2 n]: all low nibbles, then all high ones."""
    return torch.cat((packed & 15, packed >> 4), -1)


def _bits(packed, shifts, mask):
    """[blocks, n] bytes → [blocks, len(shifts), n]"""
    by = _constant(tuple(shifts), torch.uint8, packed.device).view(1, -1, 1)
    return (packed.unsqueeze(1) >> by) & mask


def q4_0(blocks, dtype):
    return (_nibbles(blocks[:, 2:]).to(dtype) - 8) * _f16(blocks, 0, dtype)


def q4_1(blocks, dtype):
    return _nibbles(blocks[:, 4:]).to(dtype) * _f16(blocks, 0, dtype) + _f16(blocks, 2, dtype)


def _fifth_bits(packed):
    """[blocks, 4] bytes → [blocks, 32], bit i of the little-endian word first"""
    return _bits(packed, range(8), 1).transpose(1, 2).reshape(-1, 32)


def q5_0(blocks, dtype):
    codes = _nibbles(blocks[:, 6:]) | (_fifth_bits(blocks[:, 2:6]) << 4)
    return (codes.to(dtype) - 16) * _f16(blocks, 0, dtype)


def q5_1(blocks, dtype):
    codes = _nibbles(blocks[:, 8:]) | (_fifth_bits(blocks[:, 4:8]) << 4)
    return codes.to(dtype) * _f16(blocks, 0, dtype) + _f16(blocks, 2, dtype)


def q8_0(blocks, dtype):
    return blocks[:, 2:].contiguous().view(torch.int8).to(dtype) * _f16(blocks, 0, dtype)


def _by_group(codes, scales, offsets=None):
    """codes [blocks, groups, n] · scales [blocks, groups] − offsets [blocks, groups] → [blocks, groups · n]"""
    out = codes * scales.unsqueeze(-1)
    if offsets is not None:
        out = out - offsets.unsqueeze(-1)
    return out.flatten(1)


def q2_k(blocks, dtype):
    scales, packed = blocks[:, :16], blocks[:, 16:80]
    codes = _bits(packed.reshape(-1, 32), (0, 2, 4, 6), 3).reshape(len(blocks), 16, 16)
    d, dmin = _f16(blocks, 80, dtype), _f16(blocks, 82, dtype)
    return _by_group(codes.to(dtype), d * (scales & 15).to(dtype), dmin * (scales >> 4).to(dtype))


def q3_k(blocks, dtype):
    high, packed, stored = blocks[:, :32], blocks[:, 32:96], blocks[:, 96:108]
    codes = _bits(packed.reshape(-1, 32), (0, 2, 4, 6), 3).reshape(len(blocks), 8, 32)
    codes = codes | (_bits(high, range(8), 1) << 2)
    low = torch.cat((stored[:, :8] & 15, stored[:, :8] >> 4), -1)
    top = _bits(stored[:, 8:], (0, 2, 4, 6), 3).reshape(len(blocks), 16)
    scales = (low | (top << 4)).to(dtype) - 32
    values = (codes.to(dtype) - 4).reshape(len(blocks), 16, 16)
    return _by_group(values, _f16(blocks, 108, dtype) * scales)


def _k_scales(stored):
    """12 bytes → 8 scales and 8 mins of 6 bits"""
    low, middle, last = stored[:, :4], stored[:, 4:8], stored[:, 8:]
    scales = torch.cat((low & 63, (last & 15) | ((low >> 6) << 4)), -1)
    mins = torch.cat((middle & 63, (last >> 4) | ((middle >> 6) << 4)), -1)
    return scales, mins


def q4_k(blocks, dtype):
    scales, mins = _k_scales(blocks[:, 4:16])
    codes = _nibbles(blocks[:, 16:].reshape(-1, 4, 32)).reshape(len(blocks), 8, 32)
    d, dmin = _f16(blocks, 0, dtype), _f16(blocks, 2, dtype)
    return _by_group(codes.to(dtype), d * scales.to(dtype), dmin * mins.to(dtype))


def q5_k(blocks, dtype):
    scales, mins = _k_scales(blocks[:, 4:16])
    codes = _nibbles(blocks[:, 48:].reshape(-1, 4, 32)).reshape(len(blocks), 8, 32)
    codes = codes | (_bits(blocks[:, 16:48], range(8), 1) << 4)
    d, dmin = _f16(blocks, 0, dtype), _f16(blocks, 2, dtype)
    return _by_group(codes.to(dtype), d * scales.to(dtype), dmin * mins.to(dtype))


def q6_k(blocks, dtype):
    low = _nibbles(blocks[:, :128].reshape(-1, 2, 64)).reshape(-1, 4, 32)
    high = _bits(blocks[:, 128:192].reshape(-1, 32), (0, 2, 4, 6), 3)
    codes = (low | (high << 4)).to(dtype) - 32
    scales = blocks[:, 192:208].contiguous().view(torch.int8).to(dtype)
    return _by_group(codes.reshape(len(blocks), 16, 16), _f16(blocks, 208, dtype) * scales)


IQ4_VALUES = (-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113)


def _iq4_values(codes, dtype):
    return _constant(IQ4_VALUES, dtype, codes.device)[codes.long()]


def iq4_nl(blocks, dtype):
    return _iq4_values(_nibbles(blocks[:, 2:]), dtype) * _f16(blocks, 0, dtype)


def iq4_xs(blocks, dtype):
    low = _bits(blocks[:, 4:8], (0, 4), 15).transpose(1, 2).reshape(-1, 8)
    high = _bits(blocks[:, 2:4], (0, 2, 4, 6), 3).transpose(1, 2).reshape(-1, 8)
    scales = (low | (high << 4)).to(dtype) - 32
    codes = _nibbles(blocks[:, 8:].reshape(-1, 8, 16))
    return _by_group(_iq4_values(codes, dtype), _f16(blocks, 0, dtype) * scales)


# type → bytes and weights of a block, and what expands [blocks, bytes] to [blocks, weights]
BLOCKS = {
    "Q4_0": (18, 32, q4_0),
    "Q4_1": (20, 32, q4_1),
    "Q5_0": (22, 32, q5_0),
    "Q5_1": (24, 32, q5_1),
    "Q8_0": (34, 32, q8_0),
    "Q2_K": (84, 256, q2_k),
    "Q3_K": (110, 256, q3_k),
    "Q4_K": (144, 256, q4_k),
    "Q5_K": (176, 256, q5_k),
    "Q6_K": (210, 256, q6_k),
    "IQ4_NL": (18, 32, iq4_nl),
    "IQ4_XS": (136, 256, iq4_xs),
}
PLAIN = {
    name: getattr(torch, attribute)
    for name, attribute in (
        ("F32", "float32"),
        ("F16", "float16"),
        ("BF16", "bfloat16"),
        ("F64", "float64"),
        ("F8_E4M3", "float8_e4m3fn"),
        ("F8_E5M2", "float8_e5m2"),
    )
    if hasattr(torch, attribute)
}


def dequantise(stored, type_name, shape, dtype):
    """Stored bytes, a flat uint8 tensor, as a tensor of that shape and dtype."""
    if type_name in PLAIN:
        return stored.view(PLAIN[type_name]).reshape(shape).to(dtype)
    if type_name not in BLOCKS:
        raise NotImplementedError(f"no PyTorch-level dequantisation of {type_name} here")
    size, _, expand = BLOCKS[type_name]
    return expand(stored.view(-1, size), dtype).reshape(shape)
