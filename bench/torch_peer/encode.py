"""A text encoder in PyTorch behind bench/peer.ts's protocol: transformers' classes, weights of the same file.

python3 encode.py --serve --kind clip_l|clip_g|t5 --file FILE --tokens N --threads T [--ids FILE] [--batch B]
  [--device cuda] [--precision bf16|fp16|fp32] [--compile]
"""

import argparse
import time

import numpy
import torch

from encoders import make_encoder
from protocol import DTYPES, answer, device_facts, memory, open_device, serve, synchronize, versions
from weights import read_weights


def parse_options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--kind", choices=["clip_l", "clip_g", "t5"], required=True)
    parser.add_argument("--file", required=True)
    parser.add_argument("--tokens", type=int, default=77)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--ids")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    # T5 leaves the range of fp16; bf16 is what it runs in on a GPU.
    parser.add_argument("--precision", choices=list(DTYPES))
    parser.add_argument("--compile", action="store_true", help="through torch.compile")
    return parser.parse_args()


class Encoder:
    def __init__(self, options):
        self.options = options
        self.device = open_device(options.device)
        precision = options.precision or ("bf16" if self.device.type == "cuda" else "fp32")
        if options.threads > 0:
            torch.set_num_threads(options.threads)
        start = time.perf_counter()
        weights = read_weights(options.file, self.device, DTYPES[precision])
        self.encode, made = make_encoder(options.kind, weights, DTYPES[precision])
        if options.compile:
            self.encode, made = torch.compile(self.encode), f"{made}, torch.compile"
        synchronize(self.device)
        self.ready = {
            "load_seconds": time.perf_counter() - start,
            "description": f"{made}, {precision}",
            "versions": versions(),
            **device_facts(self.device),
        }
        self.last = None

    def ids(self, tokens):
        count = self.options.batch * tokens
        if self.options.ids:
            ids = numpy.fromfile(self.options.ids, dtype="<i4", count=count)
        else:
            ids = numpy.arange(1, count + 1)
        return torch.from_numpy(ids.astype(numpy.int64)).reshape(self.options.batch, tokens)

    def run(self, argument):
        """Ids from the host to states on the host, as ours: what a caller waits for."""
        tokens = int(argument)
        ids = self.ids(tokens)
        cpu = time.process_time()
        synchronize(self.device)
        start = time.perf_counter()
        self.last = self.encode(ids.to(self.device)).float().cpu()
        seconds = time.perf_counter() - start
        found = memory(self.device)
        return {
            "tokens": tokens,
            "seconds": seconds,
            "cpu_seconds": time.process_time() - cpu,
            "rms": float(self.last.pow(2).mean().sqrt()),
            "non_finite": int((~torch.isfinite(self.last)).sum()),
            "rss_peak": found["rss_peak"],
            "device_peak": found["device_peak"],
        }

    def dump(self, path):
        self.last.contiguous().numpy().tofile(path)
        return {"path": path, "values": self.last.numel()}

    def threads(self, argument):
        torch.set_num_threads(int(argument))
        return {"threads": int(argument)}


def main():
    encoder = Encoder(parse_options())
    answer("ready", rss_peak=memory(encoder.device)["rss_peak"], **encoder.ready)
    serve({"run": encoder.run, "dump": encoder.dump, "threads": encoder.threads})


if __name__ == "__main__":
    main()
