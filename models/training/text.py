"""The two text encoders: T5 v1.1 (arXiv:1910.10683, gated GELU arXiv:2002.05202) and CLIP's text tower
(arXiv:2103.00020); modules are named so that state_dict() has Hugging Face's keys."""
import math

import torch
import torch.nn.functional as F
from torch import nn

T5_CONFIG = {"model_type": "t5", "architectures": ["T5EncoderModel"], "d_model": 128, "d_kv": 32, "num_heads": 4,
             "d_ff": 256, "num_layers": 3, "relative_attention_num_buckets": 32,
             "relative_attention_max_distance": 128, "layer_norm_epsilon": 1e-6, "feed_forward_proj": "gated-gelu",
             "dense_act_fn": "gelu_new", "is_gated_act": True, "pad_token_id": 0, "eos_token_id": 1,
             "decoder_start_token_id": 0, "tie_word_embeddings": False}
CLIP_CONFIG = {"model_type": "clip_text_model", "architectures": ["CLIPTextModel"], "hidden_size": 64,
               "intermediate_size": 256, "num_attention_heads": 2, "num_hidden_layers": 2,
               "max_position_embeddings": 77, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}


class T5Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(width)), eps

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight


def linear(width_in, width_out, std):
    layer = nn.Linear(width_in, width_out, bias=False)
    nn.init.normal_(layer.weight, std=std)
    return layer


class T5Attention(nn.Module):
    def __init__(self, c, has_bias):
        super().__init__()
        d, inner, self.heads = c["d_model"], c["num_heads"] * c["d_kv"], c["num_heads"]
        self.q = linear(d, inner, (d * c["d_kv"])**-0.5)
        self.k, self.v, self.o = linear(d, inner, d**-0.5), linear(d, inner, d**-0.5), linear(inner, d, inner**-0.5)
        if has_bias:
            self.relative_attention_bias = nn.Embedding(c["relative_attention_num_buckets"], self.heads)
            nn.init.normal_(self.relative_attention_bias.weight, std=d**-0.5)

    def forward(self, x, bias):
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = torch.softmax(q @ k.transpose(-1, -2) + bias, dim=-1) @ v
        return self.o(mixed.transpose(1, 2).reshape(b, n, -1))


class T5Gated(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, f = c["d_model"], c["d_ff"]
        self.wi_0, self.wi_1, self.wo = linear(d, f, d**-0.5), linear(d, f, d**-0.5), linear(f, d, f**-0.5)

    def forward(self, x):
        return self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x))


def t5_block(c, first):
    attention, gated, block = nn.Module(), nn.Module(), nn.Module()
    attention.SelfAttention, attention.layer_norm = T5Attention(c, first), T5Norm(c["d_model"], c["layer_norm_epsilon"])
    gated.DenseReluDense, gated.layer_norm = T5Gated(c), T5Norm(c["d_model"], c["layer_norm_epsilon"])
    block.layer = nn.ModuleList([attention, gated])
    return block


def relative_buckets(length, buckets, max_distance):
    """[query, key] of 0..buckets-1: half for each direction, exact up to a quarter, then logarithmic."""
    distance = torch.arange(length)[None, :] - torch.arange(length)[:, None]
    half, exact = buckets // 2, buckets // 4
    size = distance.abs()
    octaves = torch.log(size.clamp(min=1).float() / exact) / math.log(max_distance / exact)
    large = exact + (octaves * (half - exact)).long()
    return (distance > 0).long() * half + torch.where(size < exact, size, large.clamp(max=half - 1))


class T5(nn.Module):
    def __init__(self, vocabulary, config=T5_CONFIG):
        super().__init__()
        self.config = {**config, "vocab_size": vocabulary}
        self.shared = nn.Embedding(vocabulary, config["d_model"])
        self.encoder = nn.Module()
        self.encoder.block = nn.ModuleList(t5_block(config, i == 0) for i in range(config["num_layers"]))
        self.encoder.final_layer_norm = T5Norm(config["d_model"], config["layer_norm_epsilon"])

    def forward(self, ids):
        """[batch, tokens] -> [batch, tokens, d_model]; pads are attended to, as in Flux."""
        c, x = self.config, self.shared(ids)
        table = self.encoder.block[0].layer[0].SelfAttention.relative_attention_bias
        buckets = relative_buckets(ids.shape[1], c["relative_attention_num_buckets"],
                                   c["relative_attention_max_distance"]).to(ids.device)
        bias = table(buckets).permute(2, 0, 1)
        for block in self.encoder.block:
            attention, gated = block.layer
            x = x + attention.SelfAttention(attention.layer_norm(x), bias)
            x = x + gated.DenseReluDense(gated.layer_norm(x))
        return self.encoder.final_layer_norm(x)


class ClipLayer(nn.Module):
    def __init__(self, c):
        super().__init__()
        d, self.heads = c["hidden_size"], c["num_attention_heads"]
        self.self_attn, self.mlp = nn.Module(), nn.Module()
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            setattr(self.self_attn, name, nn.Linear(d, d))
        self.layer_norm1, self.layer_norm2 = (nn.LayerNorm(d, eps=c["layer_norm_eps"]) for _ in range(2))
        self.mlp.fc1, self.mlp.fc2 = nn.Linear(d, c["intermediate_size"]), nn.Linear(c["intermediate_size"], d)

    def forward(self, x, mask):
        a, (b, n, d) = self.self_attn, x.shape
        y = self.layer_norm1(x)
        q, k, v = (f(y).view(b, n, self.heads, -1).transpose(1, 2) for f in (a.q_proj, a.k_proj, a.v_proj))
        mixed = torch.softmax(q @ k.transpose(-1, -2) * (d // self.heads)**-0.5 + mask, dim=-1) @ v
        x = x + a.out_proj(mixed.transpose(1, 2).reshape(b, n, d))
        y = self.mlp.fc1(self.layer_norm2(x))
        return x + self.mlp.fc2(y * torch.sigmoid(1.702 * y))


class Clip(nn.Module):
    def __init__(self, vocabulary, config=CLIP_CONFIG):
        super().__init__()
        self.config = {**config, "vocab_size": vocabulary, "bos_token_id": vocabulary - 2,
                       "eos_token_id": vocabulary - 1, "pad_token_id": vocabulary - 1}
        d, tower = config["hidden_size"], nn.Module()
        tower.embeddings, tower.encoder = nn.Module(), nn.Module()
        tower.embeddings.token_embedding = nn.Embedding(vocabulary, d)
        tower.embeddings.position_embedding = nn.Embedding(config["max_position_embeddings"], d)
        nn.init.normal_(tower.embeddings.token_embedding.weight, std=0.5)
        nn.init.normal_(tower.embeddings.position_embedding.weight, std=0.1)
        tower.encoder.layers = nn.ModuleList(ClipLayer(config) for _ in range(config["num_hidden_layers"]))
        tower.final_layer_norm = nn.LayerNorm(d, eps=config["layer_norm_eps"])
        self.text_model = tower

    def forward(self, ids):
        """[batch, tokens] -> pooled [batch, hidden], at the first end token. Attention is causal, so what comes after
        that token may be cut off."""
        tower, n = self.text_model, ids.shape[1]
        x = tower.embeddings.token_embedding(ids) + tower.embeddings.position_embedding.weight[:n]
        mask = torch.full((n, n), float("-inf"), device=ids.device).triu(1)
        for layer in tower.encoder.layers:
            x = layer(x, mask)
        end = (ids == self.config["eos_token_id"]).int().argmax(dim=1)
        return tower.final_layer_norm(x)[torch.arange(len(ids), device=ids.device), end]
