"""Compares the four networks with golden data of the official implementations: python3 check.py GOLDEN_FOLDER.
A model trained on a wrong formula would be worthless, so this comes before any long training."""
import json
import sys

import torch

from autoencoder import AutoEncoder
from flux import Flux, unpack
from storage import read
from text import T5, Clip


def relative(ours, theirs):
    return float((ours.double() - theirs.double()).norm() / theirs.double().norm())


def loaded(model, tensors):
    model.load_state_dict({k: v.float() for k, v in tensors.items()})
    return model.eval()


def check_flux(folder):
    tensors, metadata = read(f"{folder}/diffusion/flux_tiny_schnell/flux_tiny_schnell.weights.safetensors")
    io, _ = read(f"{folder}/diffusion/flux_tiny_schnell/flux_tiny_schnell.io.safetensors")
    model = loaded(Flux(json.loads(metadata["config"])), tensors)
    for case in "ab":
        latent = io[f"{case}.in.latent"]
        grid = (latent.shape[2] // 2, latent.shape[3] // 2)
        out = model(*(io[f"{case}.in.{k}"] for k in ("img", "timesteps", "txt", "y")), grid=grid)
        yield f"flux {case}", relative(out, io[f"{case}.out"])
        yield f"flux {case} unpacked", relative(unpack(io[f"{case}.in.img"], *grid), latent)


def check_autoencoder(folder):
    tensors, metadata = read(f"{folder}/diffusion/flux_ae_tiny/flux_ae_tiny.weights.safetensors")
    io, _ = read(f"{folder}/diffusion/flux_ae_tiny/flux_ae_tiny.io.safetensors")
    model = loaded(AutoEncoder(json.loads(metadata["config"])), tensors)
    for case in "ab":
        out = io[next(k for k in io if k.startswith(f"{case}.out") and "decode_scaled" in k)]
        yield f"autoencoder {case} decode", relative(model.decode(io[f"{case}.in.latent"]), out)
        out = io[next(k for k in io if k.startswith(f"{case}.out") and "encode_latent_scaled" in k)]
        yield f"autoencoder {case} encode", relative(model.encode(io[f"{case}.in.image"]), out)


def check_t5(folder):
    config = json.load(open(f"{folder}/encoders/t5_tiny/config.json"))
    tensors, expected = (read(f"{folder}/encoders/t5_tiny/{f}.safetensors")[0] for f in ("model", "expected"))
    own = {k: v for k, v in tensors.items() if k != "encoder.embed_tokens.weight"}
    model = loaded(T5(config["vocab_size"], config), own)
    for n in (7, 77):
        ids = expected[f"len{n}.input_ids"].long().view(-1, n)
        yield f"t5 {n}", relative(model(ids), expected[f"len{n}.last_hidden_state"].view(-1, n, config["d_model"]))


def check_clip(folder):
    config = json.load(open(f"{folder}/encoders/clip_l_tiny/config.json"))
    tensors, expected = (read(f"{folder}/encoders/clip_l_tiny/{f}.safetensors")[0] for f in ("model", "expected"))
    model = loaded(Clip(config["vocab_size"], config), {k: v for k, v in tensors.items() if "position_ids" not in k})
    yield "clip", relative(model(expected["input_ids"].long()), expected["pooled"])


@torch.no_grad()
def main():
    worst = 0.0
    for check in (check_flux, check_autoencoder, check_t5, check_clip):
        for name, error in check(sys.argv[1]):
            print(f"{name:24} relative error {error:.1e}")
            worst = max(worst, error) if error == error else float("inf")
    sys.exit(worst > 1e-4)


if __name__ == "__main__":
    main()
