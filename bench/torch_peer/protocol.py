"""What the peers written in PyTorch share: commands on stdin, one JSON object a line on stdout (bench/peer_process.ts)."""

import json
import os
import resource
import sys

import torch

# Libraries that print would break the protocol: stdout becomes stderr for all but answers.
_answers = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)


def answer(event, **values):
    _answers.write(json.dumps({"event": event, **values}) + "\n")


def serve(handlers):
    """Answers commands until 'quit' or the end of stdin. A handler takes the rest of the line and returns the answer's
    values; what it raises is answered as an error, and the next command is served."""
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        if command == "quit":
            return
        try:
            if command not in handlers:
                raise ValueError(f"unknown command {command}")
            answer(command, **handlers[command](argument))
        except Exception as error:  # whatever it is, the bench decides what to do about it
            answer("error", message=f"{type(error).__name__}: {error}")


def versions():
    found = {"torch": torch.__version__}
    if torch.version.cuda:
        found["torch's cuda"] = torch.version.cuda
        found["cudnn"] = str(torch.backends.cudnn.version())
    for name in ("transformers", "triton"):
        try:
            found[name] = __import__(name).__version__
        except ImportError:
            pass
    return found


def open_device(name):
    """A device by our name for it; PyTorch's own TF32 shortcuts are off, so that its fp32 is FP32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    torch.set_grad_enabled(False)
    device = torch.device(name)
    if device.type != "cuda":
        return device
    device = torch.device("cuda", device.index or 0)
    torch.cuda.set_device(device)
    return device


def device_facts(device):
    """The card's name and the bytes of its L2, which inputs have to exceed."""
    if device.type != "cuda":
        return {"device": "CPU"}
    properties = torch.cuda.get_device_properties(device)
    return {"device": properties.name, "cache": getattr(properties, "L2_cache_size", None)}


def memory(device):
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rss_peak": peak,
        "device_peak": torch.cuda.max_memory_reserved(device) if device.type == "cuda" else 0,
    }


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
