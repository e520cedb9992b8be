"""A rough reading of pictures for watching the training; the published score is test/pictures' own."""
import torch

from world import PALETTE, POSITIONS, RADII, SHAPES, WINDOW, shape_mask


class Reader:
    def __init__(self):
        self.palette = torch.tensor(PALETTE, dtype=torch.float32) / 255
        masks = [shape_mask(shape, radius) for shape in SHAPES for radius in RADII]
        self.masks = torch.stack([torch.from_numpy(m) for m in masks])  # index = 2 * shape + size

    def nearest(self, colour, names):
        return int((self.palette[:names] - colour).square().sum(-1).argmin())

    def shape_at(self, picture, position, background):
        """-> (colour, shape, size), by the best of all coloured masks."""
        x, y = (c - WINDOW // 2 for c in POSITIONS[position])
        window = picture[:, y:y + WINDOW, x:x + WINDOW]
        behind = background[:, None, None]
        drawn = behind + self.masks[:, None, None] * (self.palette[:8, :, None, None] - behind)
        best = int((drawn - window).square().mean(dim=(2, 3, 4)).argmin())
        shape_and_size, colour = divmod(best, 8)
        return colour, shape_and_size // 2, shape_and_size % 2

    def read(self, picture, scene):
        """picture [3, 64, 64] in 0..1 -> {attribute: right?}; `clean`: nothing where nothing was asked for."""
        empty = torch.ones(64, 64, dtype=torch.bool)
        shapes = [scene[i:i + 4] for i in (1, 5) if scene[i] >= 0]
        for _, _, _, position in shapes:
            x, y = (c - WINDOW // 2 for c in POSITIONS[position])
            empty[y:y + WINDOW, x:x + WINDOW] = False
        background = picture[:, empty].median(dim=1).values
        strange = (picture[:, empty] - background[:, None]).abs().amax(0) > 0.22
        right = {"background": self.nearest(background, 9) == scene[0], "clean": float(strange.float().mean()) < 0.02,
                 "colour": True, "shape": True, "size": True}
        for colour, shape, size, position in shapes:
            seen = self.shape_at(picture, position, background)
            for name, a, b in zip(("colour", "shape", "size"), seen, (colour, shape, size)):
                right[name] &= a == b
        return right

    def score(self, pictures, scenes):
        """Shares: everything right for one and for two shapes, and each attribute alone."""
        rows = [self.read(p, s) for p, s in zip((pictures.clamp(-1, 1) + 1).cpu() / 2, scenes)]
        whole = {n: [all(r.values()) for r, s in zip(rows, scenes) if (s[5] >= 0) == (n == "two")]
                 for n in ("one", "two")}
        figures = {n: sum(v) / max(1, len(v)) for n, v in whole.items()}
        return figures | {k: sum(r[k] for r in rows) / len(rows) for k in rows[0]}
