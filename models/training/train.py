#!/usr/bin/env python3
"""Trains Kotoba's small model: python3 train.py STAGE --folder WORK --minutes M [--device cuda] [--resume].

Stages: text, ordinary, autoencoder, decoder, latents, flux (latents and decoder may run beside flux), and then
export --target FOLDER. Needs PyTorch 1.13 or later and NumPy. ../README.md says what was trained for how long.
"""
import argparse
import ctypes

import torch


def keep_memory():
    """glibc gives large blocks back to the system at once and pays for every page again; not here."""
    try:
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-4, 0)  # M_MMAP_MAX
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
    except OSError:
        pass


def export_all(options):
    from export import export, write_held_out, write_parity
    print(export(options.folder, options.target))
    write_parity(options.target, f"{options.folder}/parity.safetensors")
    if options.held_out:
        write_held_out(options.held_out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["text", "ordinary", "autoencoder", "decoder", "latents", "flux", "export"])
    parser.add_argument("--folder", required=True, help="checkpoints and logs; never in the repository")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--target", help="export: where the shipped files go")
    parser.add_argument("--held-out", help="export: also write the held-out prompts to this file")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--constant", type=float, default=0.6,
                        help="flux: share of the time before the learning rate falls (0 for a last stretch)")
    parser.add_argument("--bf16", action="store_true", help="flux: products of bfloat16 numbers (AVX512-BF16 or CUDA)")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    keep_memory()
    torch.set_num_threads(options.threads)
    if options.stage == "export":
        return export_all(options)
    from train_autoencoder import train_decoder, train_joint
    from train_flux import cache_latents, train_flux
    from train_text import train_ordinary, train_text
    stages = {"text": train_text, "ordinary": train_ordinary, "autoencoder": train_joint, "decoder": train_decoder,
              "latents": cache_latents, "flux": train_flux}
    extra = {}
    if options.stage == "flux":
        extra = {"bf16": options.bf16, "constant": options.constant}
    stages[options.stage](options.folder, options.minutes, options.device, options.resume, **extra)


if __name__ == "__main__":
    main()
