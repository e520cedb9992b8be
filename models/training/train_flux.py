"""Stage 3: Flux on cached latents and the frozen encoders' outputs; a new caption for every sample.

Straight paths x_t = (1 - t) x_0 + t n and velocity n - x_0 (arXiv:2209.03003, 2403.03206). The picture is nearly
determined by its caption, so most is learnt near t = 1, where only the caption can tell.
"""
import random
from pathlib import Path

import torch
import torch.nn.functional as F

from autoencoder import AutoEncoder
from flux import CONFIG, Flux, initialise, pack, sample, unpack
from run import Average, Run, clipped_step, save, set_learning_rate
from score import Reader
from train_text import Captions, load_text
from world import Painter, training_scene

SHARD = 2048
T5_DROPPED = 0.04  # captions that only CLIP sees


def load_autoencoder(folder, device="cpu"):
    """The encoder of the joint stage with the newest decoder."""
    model = AutoEncoder()
    model.load_state_dict(torch.load(f"{folder}/autoencoder.pt", map_location=device)["model"])
    if Path(folder, "decoder.pt").exists():
        model.decoder.load_state_dict(torch.load(f"{folder}/decoder.pt", map_location=device)["decoder"])
    return model.to(device).eval().requires_grad_(False)


@torch.no_grad()
def cache_latents(folder, minutes, device="cpu", resume=False, seed=5):
    """Writes shards of (scenes, packed latents) until the time is over; training takes them up as they come."""
    run, rng, painter = Run(folder, "latents", minutes, device), random.Random(seed), Painter(device)
    model, where = load_autoencoder(folder, device), Path(folder, "latents")
    where.mkdir(exist_ok=True)
    first = len(list(where.glob("*.pt"))) if resume else 0
    rng.seed(seed + first)
    while not run.over():
        # The first shards hold single shapes only: that is what Flux begins with.
        scenes = torch.tensor([training_scene(rng, 0.0 if first < 3 else 0.75) for _ in range(SHARD)])
        latents = torch.cat([pack(model.encode(painter.draw(part.to(device)))) for part in scenes.split(64)])
        save(where / f"{first:04}.pt", {"scenes": scenes.to(torch.int8), "latents": latents.half().cpu()})
        first += 1
        run.step(SHARD)


class Latents:
    """All shards there are, and single and double scenes apart, so that their share can be chosen."""

    def __init__(self, folder):
        self.folder, self.files, self.scenes, self.latents = Path(folder, "latents"), [], None, None

    def refresh(self):
        new = [f for f in sorted(self.folder.glob("*.pt")) if f not in self.files]
        if not new:
            return
        parts = [torch.load(f) for f in new]
        old = [] if self.scenes is None else [self.scenes]
        self.scenes = torch.cat(old + [p["scenes"] for p in parts])
        self.latents = torch.cat(([] if self.latents is None else [self.latents]) + [p["latents"] for p in parts])
        self.files += new
        double = self.scenes[:, 5] >= 0
        self.singles, self.doubles = (~double).nonzero()[:, 0], double.nonzero()[:, 0]

    def batch(self, count, two_objects):
        """-> (scenes [count, 9] long, latents [count, 16, 64])"""
        share = int(round(count * two_objects)) if len(self.doubles) else 0
        rows = torch.cat([self.singles[torch.randint(len(self.singles), (count - share,))],
                          self.doubles[torch.randint(len(self.doubles), (share,))] if share else self.doubles[:0]])
        rows = rows[torch.randperm(count)]
        return self.scenes[rows].long(), self.latents[rows].float()


def random_times(count, near_noise):
    """A share `near_noise` in 0.98..1, 15 % at the sampler's other steps, the rest spread."""
    pick, times = torch.rand(count), torch.sigmoid(0.3 + torch.randn(count))
    steps = torch.tensor([0.25, 0.5, 0.75])[torch.randint(3, (count,))]
    times = torch.where(pick < near_noise + 0.15, steps, times)
    return torch.where(pick < near_noise, 1 - 0.02 * torch.rand(count) * (torch.rand(count) < 0.7), times)


class Batches:
    """Conditioned training batches; captions are encoded many at a time."""

    def __init__(self, folder, seed, device, size, ahead=8):
        self.device, self.size, self.ahead, self.ready = device, size, ahead, []
        self.latents, self.captions = Latents(folder), Captions(seed, device)
        self.t5, self.clip = load_text(folder, device)

    @torch.no_grad()
    def next(self, two_objects, near_noise):
        if not self.ready:
            self.latents.refresh()
            scenes, latents = self.latents.batch(self.size * self.ahead, two_objects)
            batch = self.captions.of(scenes.tolist())
            txt, y = self.t5(batch["t5"]), self.clip(batch["clip"])
            txt = txt * (torch.rand(len(txt), 1, 1) >= T5_DROPPED).to(txt.device)
            self.ready = list(zip(*(v.split(self.size) for v in (latents.to(self.device), txt, y))))
        x0, txt, y = self.ready.pop()
        t = random_times(len(x0), near_noise).to(self.device)
        noise = torch.randn_like(x0)
        mixed = x0 + t[:, None, None] * (noise - x0)
        return mixed, t, txt, y, noise - x0


class Judge:
    """Pictures of held-out captions from fixed noise, and their score."""

    def __init__(self, folder, device, count=120):
        self.captions, self.reader = Captions(77, device), Reader()
        half = count // 2
        self.scenes = self.captions.scenes(half, 0.0, held_out=True) + self.captions.scenes(half, 1.0, held_out=True)
        batch = self.captions.of(self.scenes)
        self.texts, self.clip_ids, self.t5_ids = batch["texts"], batch["clip"], batch["t5"]
        self.folder, self.device = folder, device
        self.noise = torch.randn(count, 16, 64, generator=torch.Generator().manual_seed(7)).to(device)

    @torch.no_grad()
    def pictures(self, model, t5=None):
        better, clip = load_text(self.folder, self.device)
        tokens = sample(model, self.noise, (t5 or better)(self.t5_ids), clip(self.clip_ids))
        return load_autoencoder(self.folder, self.device).decode(unpack(tokens, 4, 4))

    def score(self, model, t5=None):
        return {k: round(v, 3) for k, v in self.reader.score(self.pictures(model, t5), self.scenes).items()}


class RoundedProduct(torch.autograd.Function):
    """A linear layer whose three products take bfloat16 numbers and sum in float32; 1.6 times as fast on CPUs with
    AVX512-BF16. Only training uses it: weights, their average and every picture stay float32."""

    @staticmethod
    def forward(ctx, x, weight, bias):
        rounded = x.bfloat16(), weight.bfloat16()
        ctx.save_for_backward(*rounded)
        return F.linear(*rounded).float().add_(bias)

    @staticmethod
    def backward(ctx, gradient):
        x, weight = ctx.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])
        rounded = flat.bfloat16()
        by_weight = rounded.t() @ x.reshape(-1, x.shape[-1])
        return (rounded @ weight).float().view(x.shape), by_weight.float(), flat.sum(0)


class RoundedLinear(torch.nn.Linear):
    def forward(self, x):
        return RoundedProduct.apply(x, self.weight, self.bias)


def round_products(model):
    for module in model.modules():
        if type(module) is torch.nn.Linear:
            module.__class__ = RoundedLinear


def curriculum(samples):
    """Share of captions with two shapes: none at first, then more and more."""
    return 0.7 * min(1.0, max(0.0, (samples - 30_000) / 50_000))


def train_flux(folder, minutes, device="cpu", resume=False, peak=2e-3, seed=6, batch_size=48,
               bf16=False, config=None, constant=0.6):
    torch.manual_seed(seed)
    model = Flux({**CONFIG, **(config or {})}).to(device)
    initialise(model)
    run = Run(folder, "flux", minutes, device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01)
    average = Average(model, 0.999)
    state = run.resume() if resume else None
    if state:
        for part, value in ((model, "model"), (average.model, "average"), (optimiser, "optimiser")):
            part.load_state_dict(state[value])
        average.steps = run.steps
    if bf16:
        round_products(model)
    torch.manual_seed(seed + run.steps)
    batches, judge = Batches(folder, seed + run.steps, device, batch_size), Judge(folder, device)

    def keep():
        run.save(model=model.state_dict(), average=average.model.state_dict(), optimiser=optimiser.state_dict(),
                 config=model.config)
        run.log(latents=len(batches.latents.scenes), **judge.score(average.model))

    while not run.over():
        two_objects, near_noise = curriculum(run.samples), 0.5 if run.progress < 0.5 else 0.35
        *inputs, velocity = batches.next(two_objects, near_noise)
        set_learning_rate(optimiser, run.learning_rate(peak, constant=constant))
        loss = F.mse_loss(model(*inputs), velocity)
        loss.backward()
        clipped_step(optimiser, model.parameters())
        average.update(model)
        run.step(batch_size, loss=loss)
        if run.checkpoint_due(150):
            keep()
    keep()
