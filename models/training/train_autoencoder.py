"""Stage 2: encoder and decoder together on crops, then on whole pictures; then the decoder alone on noisy latents."""
import random

import torch

from autoencoder import AutoEncoder, initialise
from run import Average, Run, clipped_step, set_learning_rate
from world import POSITIONS, WINDOW, Painter, random_scene

CROP_SHARE = 0.4  # of the time of the joint stage
KL_WEIGHT = 1e-4


def scene_batch(rng, count, two_objects=0.6):
    return torch.tensor([random_scene(rng, two_objects) for _ in range(count)])


def crop(pictures, scenes, rng):
    """[n, 3, 64, 64] -> [n, 3, 32, 32]: mostly exactly the window of one of the shapes, on the grid of the latents."""
    out = []
    for picture, scene in zip(pictures, scenes.tolist()):
        position = scene[8] if scene[8] >= 0 and rng.random() < 0.5 else scene[4]
        x, y = (c - WINDOW // 2 for c in POSITIONS[position])
        if rng.random() < 0.4:
            x, y = (max(0, min(WINDOW, v + rng.choice((-16, -8, 8, 16)))) for v in (x, y))
        out.append(picture[:, y:y + WINDOW, x:x + WINDOW])
    return torch.stack(out)


def edge_weight(pictures):
    """1 in flat areas, up to 3 on edges."""
    across = (pictures[..., :, 1:] - pictures[..., :, :-1]).abs().amax(1, keepdim=True)
    down = (pictures[..., 1:, :] - pictures[..., :-1, :]).abs().amax(1, keepdim=True)
    edge = torch.zeros_like(pictures[:, :1])
    edge[..., :, 1:] += across
    edge[..., :, :-1] += across
    edge[..., 1:, :] += down
    edge[..., :-1, :] += down
    return 1 + 2 * edge.clamp(max=1)


def picture_loss(ours, pictures):
    error = ours - pictures
    return (edge_weight(pictures) * (error.abs() + error.square())).mean()


@torch.no_grad()
def psnr(model, painter, count=64, noise=0.0):
    """dB on fixed pictures, on the 0..255 scale's range."""
    pictures = painter.draw(scene_batch(random.Random(1), count), generator=torch.Generator().manual_seed(1))
    latents = model.encode(pictures)
    ours = model.decode(latents + noise * torch.randn_like(latents)).clamp(-1, 1)
    errors = ((ours - pictures) / 2).square().mean(dim=(1, 2, 3))
    return float((-10 * errors.log10()).mean())


def train_joint(folder, minutes, device="cpu", resume=False, peak=2e-3, seed=1):
    torch.manual_seed(seed)
    run = Run(folder, "autoencoder", minutes, device)
    rng, painter = random.Random(seed), Painter(device)
    model = AutoEncoder().to(device)
    initialise(model)
    state = run.resume() if resume else None
    if state:
        model.load_state_dict(state["model"])
    average = Average(model, 0.998)
    optimiser = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-3)
    while not run.over():
        cropping = run.progress < CROP_SHARE and not state
        scenes = scene_batch(rng, 32 if cropping else 12, 0.5)
        pictures = painter.draw(scenes)
        if cropping:
            pictures = crop(pictures, scenes, rng)
        set_learning_rate(optimiser, run.learning_rate(peak if cropping else peak * 0.7))
        mean, logvar = model.moments(pictures)
        logvar = logvar.clamp(-12, 5)
        # From nothing to 0.15 of the latents' own spread: a sampler's small mistakes must not be seen.
        spread = torch.maximum((0.5 * logvar).exp(), 0.15 * max(0.0, 2 * run.progress - 0.6) * mean.std().detach())
        reconstruction = picture_loss(model.decoder(mean + spread * torch.randn_like(mean)), pictures)
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        (reconstruction + KL_WEIGHT * divergence).backward()
        clipped_step(optimiser, model.parameters())
        average.update(model)
        run.step(len(pictures), loss=reconstruction, kl=divergence)
        if run.checkpoint_due():
            run.save(model=average.model.state_dict())
            run.log(psnr=psnr(average.model, painter), latent_std=float(mean.std()))
    standardise(average.model, painter)
    run.save(model=average.model.state_dict())
    run.log(psnr=psnr(average.model, painter), psnr_noise=psnr(average.model, painter, noise=0.2))


@torch.no_grad()
def standardise(model, painter, count=512):
    """Gives every latent channel zero mean and unit variance, by changing the weights on both sides of the latents.
    (Only at the picture's border is that not exact: there the decoder's padding meets the shift.)"""
    pictures = painter.draw(scene_batch(random.Random(2), count))
    latents = torch.cat([model.moments(part)[0] for part in pictures.split(64)])
    mean, std = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    z, out, into = len(mean), model.encoder.conv_out, model.decoder.conv_in
    into.bias += (into.weight * mean[None, :, None, None]).sum(dim=(1, 2, 3))
    into.weight *= std[None, :, None, None]
    out.bias[:z] = (out.bias[:z] - mean) / std
    out.weight[:z] /= std[:, None, None, None]
    out.bias[z:] -= 2 * std.log()


def train_decoder(folder, minutes, device="cpu", resume=False, peak=1e-3, seed=2, noise=0.25):
    """The encoder stays as it is (Flux is trained on its latents); the decoder learns to bear a sampler's mistakes."""
    torch.manual_seed(seed)
    run = Run(folder, "decoder", minutes, device)
    rng, painter = random.Random(seed), Painter(device)
    model = AutoEncoder().to(device)
    model.load_state_dict(torch.load(run.folder / "autoencoder.pt", map_location=device)["model"])
    state = run.resume() if resume else None
    if state:
        model.decoder.load_state_dict(state["decoder"])
    model.encoder.requires_grad_(False)
    average = Average(model.decoder, 0.998)
    optimiser = torch.optim.AdamW(model.decoder.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=1e-3)

    def keep():
        run.save(decoder=average.model.state_dict())
        whole = AutoEncoder(model.config).to(device)
        whole.encoder, whole.decoder = model.encoder, average.model
        run.log(psnr=psnr(whole, painter), psnr_noise=psnr(whole, painter, noise=0.2))

    while not run.over():
        pictures = painter.draw(scene_batch(rng, 12))
        with torch.no_grad():
            latents = model.encode(pictures)
            amount = noise * torch.rand(len(latents), 1, 1, 1, device=device)
        set_learning_rate(optimiser, run.learning_rate(peak))
        loss = picture_loss(model.decode(latents + amount * torch.randn_like(latents)), pictures)
        loss.backward()
        clipped_step(optimiser, model.decoder.parameters())
        average.update(model.decoder)
        run.step(len(pictures), loss=loss)
        if run.checkpoint_due(180):
            keep()
    keep()
