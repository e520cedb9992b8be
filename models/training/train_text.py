"""Stage 1: T5 learns from linear heads what every noun of a caption is bound to, CLIP only which colours and shapes
occur; then both are frozen, as in Flux. The ordinary T5 learns to imitate the better one on simpler captions."""
import random

import torch
import torch.nn.functional as F
from torch import nn

from captions import caption
from run import Average, Run, clipped_step, set_learning_rate
from text import T5, Clip
from tokenizers import T5_LENGTH, ClipTokenizer, T5Tokenizer
from world import COLOURS, SHAPES, SIZES, is_held_out, random_scene, training_scene

CLIP_CUT = 32  # tokens that training looks at; the longest caption has fewer
NOUN_HEADS = [len(COLOURS), len(SHAPES), len(SIZES), 9]


class Captions:
    """Batches of captions as ids, with the place of every noun."""

    def __init__(self, seed, device="cpu"):
        self.rng, self.device = random.Random(seed), device
        self.t5, self.clip = T5Tokenizer(), ClipTokenizer()

    def of(self, scenes, synonyms=0.35, fillers=0.15):
        """scenes: list -> dict of t5 [n, 24], clip [n, 32], nouns [n, 2] (-1: none), texts"""
        t5, clip, nouns, texts = [], [], [], []
        for scene in scenes:
            while True:
                text, words = caption(scene, self.rng, synonyms, fillers)
                ids, starts = self.t5.encode(text)
                if len(ids) <= T5_LENGTH:
                    break
            t5.append(ids + [0] * (T5_LENGTH - len(ids)))
            clip.append(self.clip.encode(text)[:CLIP_CUT])
            nouns.append([starts[words[i]] if i in words else -1 for i in range(2)])
            texts.append(text)
        tensors = {"t5": t5, "clip": clip, "nouns": nouns}
        return {"texts": texts, **{k: torch.tensor(v, device=self.device) for k, v in tensors.items()}}

    def scenes(self, count, two_objects=0.6, held_out=False):
        if not held_out:
            return [training_scene(self.rng, two_objects) for _ in range(count)]
        found = []
        while len(found) < count:
            scene = random_scene(self.rng, two_objects)
            if is_held_out(scene):
                found.append(scene)
        return found


class T5Heads(nn.Module):
    """At a noun: colour, shape, size, position; at </s>: the background."""

    def __init__(self, width):
        super().__init__()
        self.noun, self.end = nn.Linear(width, sum(NOUN_HEADS)), nn.Linear(width, len(COLOURS) + 1)

    def forward(self, hidden, batch, scenes):
        """-> (loss, share of captions with everything right)"""
        nouns = batch["nouns"]
        present = nouns >= 0
        at = hidden.gather(1, nouns.clamp(min=0)[..., None].expand(-1, -1, hidden.shape[-1]))
        wanted = scenes[:, 1:].view(-1, 2, 4)[present]
        loss, right = 0.0, torch.ones(len(wanted), dtype=torch.bool, device=hidden.device)
        for i, logits in enumerate(self.noun(at)[present].split(NOUN_HEADS, dim=-1)):
            loss = loss + F.cross_entropy(logits, wanted[:, i])
            right &= logits.argmax(-1) == wanted[:, i]
        end = (batch["t5"] == 1).int().argmax(1)
        logits = self.end(hidden[torch.arange(len(end), device=hidden.device), end])
        all_right = torch.ones_like(present)
        all_right[present] = right
        correct = all_right.all(1) & (logits.argmax(-1) == scenes[:, 0])
        return loss + F.cross_entropy(logits, scenes[:, 0]), correct.float().mean()


class ClipHeads(nn.Module):
    """Which colours, which shapes, which background; nothing about what belongs to what."""

    def __init__(self, width):
        super().__init__()
        self.bags, self.background = nn.Linear(width, len(COLOURS) + len(SHAPES)), nn.Linear(width, len(COLOURS) + 1)

    def forward(self, pooled, scenes):
        wanted = torch.zeros(len(scenes), len(COLOURS) + len(SHAPES) + 2, device=pooled.device)
        for colour, shape in ((1, 2), (5, 6)):
            there = scenes[:, colour] >= 0
            wanted.scatter_(1, torch.where(there, scenes[:, colour], wanted.shape[1] - 2)[:, None], 1)
            wanted.scatter_(1, torch.where(there, scenes[:, shape] + len(COLOURS), wanted.shape[1] - 1)[:, None], 1)
        wanted = wanted[:, :-2]
        bags, background = self.bags(pooled), self.background(pooled)
        right = ((bags > 0) == (wanted > 0)).all(1) & (background.argmax(-1) == scenes[:, 0])
        loss = 5 * F.binary_cross_entropy_with_logits(bags, wanted) + F.cross_entropy(background, scenes[:, 0])
        return loss, right.float().mean()


def train_text(folder, minutes, device="cpu", resume=False, peak=1.5e-3, seed=3, batch_size=64):
    torch.manual_seed(seed)
    run, captions = Run(folder, "text", minutes, device), Captions(seed, device)
    t5, clip = T5(len(captions.t5.vocabulary)), Clip(len(captions.clip.vocabulary))
    parts = nn.ModuleList([t5, clip, T5Heads(t5.config["d_model"]), ClipHeads(clip.config["hidden_size"])]).to(device)
    state = run.resume() if resume else None
    if state:
        parts.load_state_dict(state["parts"])
    average = Average(parts, 0.998)
    optimiser = torch.optim.AdamW(parts.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01)

    def keep():
        run.save(parts=average.model.state_dict(), t5=average.model[0].state_dict(), clip=average.model[1].state_dict())
        run.log(**held_out_figures(average.model, device))

    while not run.over():
        scenes = captions.scenes(batch_size)
        batch, scenes = captions.of(scenes), torch.tensor(scenes, device=device)
        set_learning_rate(optimiser, run.learning_rate(peak, constant=0.3))
        t5_loss, t5_right = parts[2](parts[0](batch["t5"]), batch, scenes)
        clip_loss, clip_right = parts[3](parts[1](batch["clip"]), scenes)
        (t5_loss + clip_loss).backward()
        clipped_step(optimiser, parts.parameters())
        average.update(parts)
        run.step(batch_size, t5_loss=t5_loss, clip_loss=clip_loss, t5_right=t5_right, clip_right=clip_right)
        if run.checkpoint_due(60):
            keep()
    keep()


@torch.no_grad()
def held_out_figures(parts, device, count=1000):
    captions = Captions(99, device)
    scenes = captions.scenes(count, held_out=True)
    batch, scenes = captions.of(scenes), torch.tensor(scenes, device=device)
    t5 = parts[2](parts[0](batch["t5"]), batch, scenes)[1]
    return {"held_out_t5": float(t5), "held_out_clip": float(parts[3](parts[1](batch["clip"]), scenes)[1])}


def load_text(folder, device="cpu", t5_key="t5"):
    """The frozen encoders of stage 1: (t5, clip)."""
    captions = Captions(0)
    state = torch.load(f"{folder}/text.pt", map_location=device)
    t5, clip = T5(len(captions.t5.vocabulary)), Clip(len(captions.clip.vocabulary))
    t5.load_state_dict(state["t5"])
    clip.load_state_dict(state["clip"])
    return tuple(m.to(device).eval().requires_grad_(False) for m in (t5, clip))


def train_ordinary(folder, minutes, device="cpu", resume=False, peak=1.5e-3, seed=4, batch_size=64):
    """Single shapes and plain words only; the same width and tokens, so that Flux understands it as far as it goes."""
    torch.manual_seed(seed)
    run, captions = Run(folder, "ordinary", minutes, device), Captions(seed, device)
    better, _ = load_text(folder, device)
    model = T5(len(captions.t5.vocabulary)).to(device)
    state = run.resume() if resume else None
    if state:
        model.load_state_dict(state["t5"])
    average = Average(model, 0.998)
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01)
    while not run.over():
        ids = captions.of(captions.scenes(batch_size, two_objects=0), synonyms=0, fillers=0)["t5"]
        set_learning_rate(optimiser, run.learning_rate(peak, constant=0.3))
        loss = F.mse_loss(model(ids), better(ids)) / better(ids).square().mean()
        loss.backward()
        clipped_step(optimiser, model.parameters())
        average.update(model)
        run.step(batch_size, relative_error=loss)
        if run.checkpoint_due(60):
            run.save(t5=average.model.state_dict())
    run.save(t5=average.model.state_dict())
