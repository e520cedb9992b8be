"""safetensors files: eight bytes of header length, a JSON header, the tensors."""
import json
import os
import struct

import torch

NAMES = {torch.float16: "F16", torch.float32: "F32", torch.bfloat16: "BF16", torch.int32: "I32", torch.int64: "I64"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}


def write(path, tensors, metadata=None):
    """Atomic. metadata: text to text."""
    header, parts, offset = {"__metadata__": metadata} if metadata else {}, [], 0
    for name, tensor in tensors.items():
        data = tensor.detach().cpu().contiguous().view(-1)
        data = data.view(torch.int16).numpy().tobytes() if data.element_size() == 2 else data.numpy().tobytes()
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape),
                        "data_offsets": [offset, offset + len(data)]}
        parts.append(data)
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(f"{path}.tmp", "wb") as out:
        out.writelines([struct.pack("<Q", len(text)), text, *parts])
    os.replace(f"{path}.tmp", path)


def read(path):
    """-> (tensors, metadata)"""
    data = open(path, "rb").read()
    length, = struct.unpack("<Q", data[:8])
    header, start, tensors = json.loads(data[8:8 + length]), 8 + length, {}
    metadata = header.pop("__metadata__", {})
    for name, info in header.items():
        begin, end = (start + o for o in info["data_offsets"])
        tensors[name] = torch.frombuffer(bytearray(data[begin:end]), dtype=DTYPES[info["dtype"]]).view(info["shape"])
    return tensors, metadata
