"""T5 and CLIP text encoders in PyTorch: transformers' classes where they are installed, else plain ones of our own."""

import math

import torch
import torch.nn.functional as F

T5_BUCKETS = 32
T5_MAX_DISTANCE = 128
T5_HEAD = 64
CLIP_HEAD = 64


def make_encoder(kind, weights, dtype):
    """@returns what encodes ids [batch, tokens] to final hidden states, and what it is"""
    try:
        import transformers
    except ImportError:
        plain = PlainT5(weights) if kind == "t5" else PlainClip(weights, kind)
        return plain, "plain PyTorch (transformers is not installed)"
    make = transformers_t5 if kind == "t5" else transformers_clip
    model = make(transformers, weights, kind).to(dtype).eval()
    return lambda ids: model(input_ids=ids).last_hidden_state, f"transformers {transformers.__version__}"


def count_blocks(weights, pattern):
    return sum(1 for i in range(1000) if pattern.format(i) in weights)


def transformers_t5(transformers, weights, _kind):
    d_ff, d_model = weights["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"].shape
    table = weights["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    config = transformers.T5Config(
        vocab_size=weights["shared.weight"].shape[0],
        d_model=d_model,
        d_kv=T5_HEAD,
        d_ff=d_ff,
        num_heads=table.shape[1],
        num_layers=count_blocks(weights, "encoder.block.{}.layer.0.layer_norm.weight"),
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,
    )
    weights = {**weights, "encoder.embed_tokens.weight": weights["shared.weight"]}
    return filled(transformers.T5EncoderModel, config, weights)


def transformers_clip(transformers, weights, kind):
    intermediate, hidden = weights["text_model.encoder.layers.0.mlp.fc1.weight"].shape
    config = transformers.CLIPTextConfig(
        vocab_size=weights["text_model.embeddings.token_embedding.weight"].shape[0],
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=count_blocks(weights, "text_model.encoder.layers.{}.layer_norm1.weight"),
        num_attention_heads=hidden // CLIP_HEAD,
        projection_dim=hidden,
        hidden_act="quick_gelu" if kind == "clip_l" else "gelu",
        eos_token_id=49407,
    )
    model = transformers.CLIPTextModelWithProjection if kind == "clip_g" else transformers.CLIPTextModel
    return filled(model, config, weights)


def filled(model_class, config, weights):
    """A model with these weights, made without memory of its own first; a name that differs only by the prefix that some
    versions leave out is taken for the same."""
    with torch.device("meta"):
        model = model_class(config)
    wanted = model.state_dict()
    given = {}
    for name in wanted:
        found = next((key for key in (name, f"text_model.{name}") if key in weights), None)
        if found is not None:
            given[name] = weights[found]
    missing = [name for name in wanted if name not in given and "position_ids" not in name]
    if missing:
        raise KeyError(f"{model_class.__name__} wants {missing[0]} and {len(missing) - 1} more that the file lacks")
    model.load_state_dict(given, strict=False, assign=True)
    for module in model.modules():  # buffers that are computed, not stored, are still without memory
        for name, buffer in list(module._buffers.items()):
            if buffer is not None and buffer.is_meta:
                positions = torch.arange(buffer.shape[-1], device=next(iter(given.values())).device)
                module._buffers[name] = positions.expand(buffer.shape)
    return model


def relative_buckets(tokens, device):
    """The bucket of every (query, key), arXiv:1910.10683 §2.1, both directions."""
    positions = torch.arange(tokens, device=device)
    distance = positions[None, :] - positions[:, None]
    half, exact = T5_BUCKETS // 2, T5_BUCKETS // 4
    far = torch.log(distance.abs().clamp(min=1).float() / exact) / math.log(T5_MAX_DISTANCE / exact)
    large = (exact + (far * (half - exact)).long()).clamp(max=half - 1)
    near = torch.where(distance.abs() < exact, distance.abs(), large)
    return near + half * (distance > 0).long()


def attention(q, k, v, heads, scale, mask):
    """[batch, tokens, heads · width] each; mask is added to the scores."""
    batch, tokens, _ = q.shape
    q, k, v = (x.view(batch, tokens, heads, -1).transpose(1, 2) for x in (q, k, v))
    if hasattr(F, "scaled_dot_product_attention"):
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
    else:
        out = (q @ k.transpose(2, 3) * scale + mask).softmax(-1) @ v
    return out.transpose(1, 2).reshape(batch, tokens, -1)


class PlainT5:
    """A T5 v1.1 encoder as arXiv:1910.10683 and 2002.05202 describe it."""

    def __init__(self, weights):
        self.w = weights
        self.layers = count_blocks(weights, "encoder.block.{}.layer.0.layer_norm.weight")
        table = weights["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
        self.table, self.heads = table, table.shape[1]

    def norm(self, x, name):
        square = x.float().pow(2).mean(-1, keepdim=True)
        return (x.float() * torch.rsqrt(square + 1e-6)).to(x.dtype) * self.w[f"{name}.weight"]

    def __call__(self, ids):
        x = F.embedding(ids, self.w["shared.weight"])
        bias = self.table[relative_buckets(ids.shape[1], ids.device)].permute(2, 0, 1).unsqueeze(0)
        for layer in range(self.layers):
            at = f"encoder.block.{layer}.layer"
            linear = lambda h, name: F.linear(h, self.w[f"{at}.{name}.weight"])  # noqa: B023, E731
            h = self.norm(x, f"{at}.0.layer_norm")
            q, k, v = (linear(h, f"0.SelfAttention.{part}") for part in "qkv")
            x = x + linear(attention(q, k, v, self.heads, 1.0, bias), "0.SelfAttention.o")
            h = self.norm(x, f"{at}.1.layer_norm")
            gate = F.gelu(linear(h, "1.DenseReluDense.wi_0"), approximate="tanh")
            x = x + linear(gate * linear(h, "1.DenseReluDense.wi_1"), "1.DenseReluDense.wo")
        return self.norm(x, "encoder.final_layer_norm")


class PlainClip:
    """A CLIP text tower, arXiv:2103.00020: causal, pre-norm; OpenAI's has the quick GELU."""

    def __init__(self, weights, kind):
        self.w = weights
        self.quick = kind == "clip_l"
        self.layers = count_blocks(weights, "text_model.encoder.layers.{}.layer_norm1.weight")

    def norm(self, x, name):
        return F.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def linear(self, x, name):
        return F.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def __call__(self, ids):
        tokens = ids.shape[1]
        x = F.embedding(ids, self.w["text_model.embeddings.token_embedding.weight"])
        x = x + self.w["text_model.embeddings.position_embedding.weight"][:tokens]
        mask = torch.full((tokens, tokens), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        for layer in range(self.layers):
            at = f"text_model.encoder.layers.{layer}"
            h = self.norm(x, f"{at}.layer_norm1")
            q, k, v = (self.linear(h, f"{at}.self_attn.{part}_proj") for part in "qkv")
            mixed = attention(q, k, v, x.shape[-1] // CLIP_HEAD, CLIP_HEAD**-0.5, mask)
            x = x + self.linear(mixed, f"{at}.self_attn.out_proj")
            h = self.linear(self.norm(x, f"{at}.layer_norm2"), f"{at}.mlp.fc1")
            h = h * torch.sigmoid(1.702 * h) if self.quick else F.gelu(h)
            x = x + self.linear(h, f"{at}.mlp.fc2")
        return self.norm(x, "text_model.final_layer_norm")
