"""Tensors of safetensors and GGUF files, expanded on the device, under Hugging Face's names."""

import json
import re
import struct

import numpy
import torch

from dequantise import BLOCKS, PLAIN, dequantise

# GGUF's numbers of the types that dequantise.py expands.
GGML_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 10: "Q2_K", 11: "Q3_K",
    12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 20: "IQ4_NL", 23: "IQ4_XS", 30: "BF16",
}  # fmt: skip


def read_weights(path, device, dtype):
    """name → tensor of that dtype"""
    mapped = numpy.memmap(path, mode="r", dtype=numpy.uint8)
    places = gguf_places(mapped) if bytes(mapped[:4]) == b"GGUF" else safetensors_places(mapped)
    weights = {}
    for name, (type_name, shape, begin, end) in places.items():
        stored = torch.from_numpy(numpy.array(mapped[begin:end])).to(device)
        weights[name] = dequantise(stored, type_name, shape, dtype)
    return weights


def safetensors_places(mapped):
    length = struct.unpack("<Q", bytes(mapped[:8]))[0]
    header = json.loads(bytes(mapped[8 : 8 + length]))
    header.pop("__metadata__", None)
    base = 8 + length
    return {
        name: (entry["dtype"], entry["shape"], *(base + at for at in entry["data_offsets"]))
        for name, entry in header.items()
    }


class Cursor:
    def __init__(self, mapped):
        self.mapped = mapped
        self.at = 0

    def numbers(self, form):
        size = struct.calcsize("<" + form)
        values = struct.unpack("<" + form, bytes(self.mapped[self.at : self.at + size]))
        self.at += size
        return values

    def number(self, form):
        return self.numbers(form)[0]

    def text(self):
        length = self.number("Q")
        self.at += length
        return bytes(self.mapped[self.at - length : self.at]).decode()

    def value(self, kind):
        """A metadata value, by GGUF's number of its type."""
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, count = self.numbers("IQ")
            return [self.value(inner) for _ in range(count)]
        return self.number("BbHhIif?__Qqd"[kind])


def gguf_places(mapped):
    cursor = Cursor(mapped)
    _, _, tensors, entries = cursor.numbers("4sIQQ")
    metadata = {}
    for _ in range(entries):
        key = cursor.text()
        metadata[key] = cursor.value(cursor.number("I"))
    listed = []
    for _ in range(tensors):
        name = cursor.text()
        shape = list(reversed(cursor.numbers(f"{cursor.number('I')}Q")))
        listed.append((name, GGML_TYPES[cursor.number("I")], shape, cursor.number("Q")))
    alignment = metadata.get("general.alignment", 32)
    base = -(-cursor.at // alignment) * alignment
    return {
        hugging_face_name(name): (kind, shape, base + offset, base + offset + stored_bytes(kind, shape))
        for name, kind, shape, offset in listed
    }


def stored_bytes(kind, shape):
    count = int(numpy.prod(shape))
    if kind in BLOCKS:
        size, weights, _ = BLOCKS[kind]
        return count // weights * size
    return count * torch.empty(0, dtype=PLAIN[kind]).element_size()


T5_PARTS = {
    "attn_q": "0.SelfAttention.q",
    "attn_k": "0.SelfAttention.k",
    "attn_v": "0.SelfAttention.v",
    "attn_o": "0.SelfAttention.o",
    "attn_rel_b": "0.SelfAttention.relative_attention_bias",
    "attn_norm": "0.layer_norm",
    "ffn_gate": "1.DenseReluDense.wi_0",
    "ffn_up": "1.DenseReluDense.wi_1",
    "ffn_down": "1.DenseReluDense.wo",
    "ffn_norm": "1.layer_norm",
}


def hugging_face_name(name):
    """llama.cpp's name of a T5 encoder's tensor in Hugging Face's."""
    block = re.fullmatch(r"enc\.blk\.(\d+)\.(\w+)\.weight", name)
    if block:
        return f"encoder.block.{block[1]}.layer.{T5_PARTS[block[2]]}.weight"
    return {
        "token_embd.weight": "shared.weight",
        "enc.output_norm.weight": "encoder.final_layer_norm.weight",
    }.get(name, name)
