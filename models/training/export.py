"""Writes what ships: F16 safetensors with the public models' key names, configurations and tokenizers beside them;
and the held-out prompts, and a parity file that says what this PyTorch code makes of the shipped files."""
import json
import os
from pathlib import Path

import torch

import storage
from autoencoder import AutoEncoder
from flux import Flux, sample, unpack
from text import T5, Clip
from tokenizers import T5_LENGTH, ClipTokenizer, T5Tokenizer, dumps
from train_flux import load_autoencoder
from train_text import Captions, load_text
from world import COLOURS, PALETTE, POSITIONS, SHAPES, SIZE, SIZES

FLUX_FILE, AE_FILE = "flux1-schnell-small.safetensors", "ae.safetensors"
LICENCE = {"format": "pt", "license": "apache-2.0"}


def write_text(path, text):
    Path(f"{path}.tmp").write_text(text, encoding="utf-8")
    os.replace(f"{path}.tmp", path)


def write_model(path, tensors, config=None):
    halves = {name: t.half() for name, t in sorted(tensors.items())}
    assert all(torch.isfinite(t).all() for t in halves.values()), path
    storage.write(path, halves, {**LICENCE, **({"config": json.dumps(config)} if config else {})})


def export_encoder(folder, model, tensors, tokenizer):
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.json", dumps({**model.config, "torch_dtype": "float16"}) + "\n")
    write_text(folder / "tokenizer.json", dumps(tokenizer.json()) + "\n")
    write_model(folder / "model.safetensors", tensors)


def export(work, target):
    """Every part that has a checkpoint in `work`."""
    target = Path(target)
    target.mkdir(parents=True, exist_ok=True)
    t5, clip = load_text(work)
    tokenizer, clip_tokenizer = T5Tokenizer(), ClipTokenizer()
    export_encoder(target / "flan_t5", t5, t5.state_dict(), tokenizer)
    export_encoder(target / "text_encoder", clip, clip.state_dict(), clip_tokenizer)
    write_text(target / "text_encoder/vocab.json", dumps(clip_tokenizer.vocabulary) + "\n")
    merges = "".join(" ".join(m) + "\n" for m in clip_tokenizer.merges)
    write_text(target / "text_encoder/merges.txt", "#version: 0.2\n" + merges)
    if Path(work, "ordinary.pt").exists():
        ordinary = torch.load(f"{work}/ordinary.pt", map_location="cpu")["t5"]
        export_encoder(target / "t5", t5, ordinary, tokenizer)
    autoencoder = load_autoencoder(work)
    write_model(target / AE_FILE, autoencoder.state_dict(), {**autoencoder.config, "resolution": SIZE})
    state = torch.load(f"{work}/flux.pt", map_location="cpu")
    write_model(target / FLUX_FILE, state["average"], {**state["config"], "max_sequence_length": T5_LENGTH})
    return {"steps": state["steps"], "samples": state["samples"]}


def shipped(target, t5_folder="flan_t5"):
    """The networks as the shipped files say: (flux, autoencoder, t5, clip)."""
    def model(kind, path):
        tensors, metadata = storage.read(Path(target, path))
        config = metadata.get("config") or Path(target, path).with_name("config.json").read_text()
        config = json.loads(config)
        network = kind(config["vocab_size"], config) if kind in (T5, Clip) else kind(config)
        network.load_state_dict({k: v.float() for k, v in tensors.items()})
        return network.eval().requires_grad_(False)
    return (model(Flux, FLUX_FILE), model(AutoEncoder, AE_FILE), model(T5, f"{t5_folder}/model.safetensors"),
            model(Clip, "text_encoder/model.safetensors"))


def write_parity(target, path, prompt="a red circle to the left of a small blue square on a yellow background"):
    flux, autoencoder, t5, clip = shipped(target)
    t5_ids = torch.tensor([T5Tokenizer().padded(prompt)])
    clip_ids = torch.tensor([ClipTokenizer().encode(prompt)])
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(42))
    hidden, pooled = t5(t5_ids), clip(clip_ids)
    tokens = noise.view(1, 16, 4, 2, 4, 2).permute(0, 2, 4, 1, 3, 5).reshape(1, 16, 64)
    latents = unpack(sample(flux, tokens, hidden, pooled), 4, 4)
    storage.write(path, {"t5_ids": t5_ids, "clip_ids": clip_ids, "t5_hidden": hidden, "clip_pooled": pooled,
                         "noise": noise, "latents": latents, "image": autoencoder.decode(latents)}, {"prompt": prompt})


def write_held_out(path, each=120):
    """Prompts of scenes that training never saw, half with one shape and half with two, with what must be seen."""
    captions, entries, seen = Captions(2026), [], set()
    while len(entries) < 2 * each:
        scene, = captions.scenes(1, float(len(entries) >= each), held_out=True)
        if scene in seen:
            continue
        seen.add(scene)
        objects = [{"colour": COLOURS[c], "shape": SHAPES[s], "size": SIZES[r], **dict(zip("xy", POSITIONS[p]))}
                   for c, s, r, p in (scene[1:5], scene[5:9]) if c >= 0]
        background = [*COLOURS, "grey"][scene[0]]
        entries.append({"prompt": captions.of([scene])["texts"][0], "background": background, "objects": objects})
    palette = dict(zip([*COLOURS, "grey"], map(list, PALETTE)))
    lines = ",\n    ".join(json.dumps(e) for e in entries)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_text(path, f'{{\n  "palette": {json.dumps(palette)},\n  "prompts": [\n    {lines}\n  ]\n}}\n')


def sheet(target, prompts, path, seeds=2, t5_folder="flan_t5", scale=2):
    """A PNG of prompts (columns) and seeds (rows) through the shipped files; needs Pillow."""
    from PIL import Image
    flux, autoencoder, t5, clip = shipped(target, t5_folder)
    t5_ids = torch.tensor([T5Tokenizer().padded(p) for p in prompts])
    clip_ids = torch.tensor([ClipTokenizer().encode(p) for p in prompts])
    rows = []
    for seed in range(seeds):
        noise = torch.randn(len(prompts), 16, 64, generator=torch.Generator().manual_seed(seed))
        images = autoencoder.decode(unpack(sample(flux, noise, t5(t5_ids), clip(clip_ids)), 4, 4))
        rows.append(torch.cat(list(images), dim=2))
    pixels = ((torch.cat(rows, dim=1).clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).resize((pixels.shape[1] * scale, pixels.shape[0] * scale), 0).save(path)
