"""Attention as people write it: by einsum, by view, fused, grouped, windowed, with biases and rotations."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.models import IMAGE, Case, normal, seeded, tokens

FC = frozenset({"fc"})
MIX = frozenset({"mix", "fc"})
SEQUENCE = normal((2, 12, 24))


class EinsumAttention(nn.Module):
    """Three projections, heads split by view, everything else by einsum."""

    def __init__(self, dim: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.embed = nn.Linear(24, dim)
        self.q, self.k, self.v = nn.Linear(dim, dim), nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        q, k, v = (f(x).view(x.size(0), -1, self.heads, self.head_dim) for f in (self.q, self.k, self.v))
        weights = torch.einsum("bqhd,bkhd->bhqk", q, k).div(4.0).softmax(dim=-1)
        y = torch.einsum("bhqk,bkhd->bqhd", weights, v).reshape(x.size(0), -1, self.heads * self.head_dim)
        return self.fc((x + self.out(y)).mean(1))


class FusedQkv(nn.Module):
    """timm style: one qkv layer, reshape to (3, heads, head_dim), scale kept from the constructor."""

    def __init__(self, dim: int = 64, num_heads: int = 4) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.head_dim = dim // num_heads
        self.scale = self.head_dim**-0.5
        self.embed = nn.Linear(24, dim)
        self.qkv = nn.Linear(dim, dim * 3)
        self.proj = nn.Linear(dim, dim)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b, n, _c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        attn = ((q * self.scale) @ k.transpose(-2, -1)).softmax(dim=-1)
        x = x + self.proj((attn @ v).transpose(1, 2).reshape(b, n, -1))
        return self.fc(x.mean(dim=1))


class RuntimeScale(nn.Module):
    """The scale is `q.size(-1) ** -0.5`: it changes when heads shrink. Sizes come from `c // self.heads`."""

    def __init__(self, dim: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(24, dim)
        self.qkv = nn.Linear(dim, dim * 3, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b, n, c = x.shape
        qkv = self.qkv(x).view(b, n, 3, self.heads, c // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        attn = torch.softmax(q @ k.mT / math.sqrt(q.size(-1)), dim=-1)
        return self.fc((x + self.proj((attn @ v).transpose(1, 2).reshape(b, n, c))).mean(1))


class ScaledDotProduct(nn.Module):
    """`F.scaled_dot_product_attention` with its default scale, a causal mask, chunked qkv and unflatten."""

    def __init__(self, dim: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Embedding(40, dim)
        self.position = nn.Parameter(torch.randn(12, dim))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.fc = nn.Linear(dim, 40)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.position[: ids.size(1)]
        q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.fc(x + self.proj(y.transpose(1, 2).flatten(2)))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    half = x.shape[-1] // 2
    return x * cos + torch.cat((-x[..., half:], x[..., :half]), dim=-1) * sin


class RotaryGqa(nn.Module):
    """LLaMA: grouped-query attention with rotary positions, RMSNorm, SwiGLU."""

    def __init__(self, dim: int = 64, heads: int = 4, kv_heads: int = 2) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = heads, kv_heads, dim // heads
        self.embed = nn.Embedding(40, dim)
        self.norm1, self.norm2 = nn.RMSNorm(dim), nn.RMSNorm(dim)
        self.wq = nn.Linear(dim, heads * self.head_dim, bias=False)
        self.wk = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wv = nn.Linear(dim, kv_heads * self.head_dim, bias=False)
        self.wo = nn.Linear(heads * self.head_dim, dim, bias=False)
        self.gate, self.up = nn.Linear(dim, 128, bias=False), nn.Linear(dim, 128, bias=False)
        self.down = nn.Linear(128, dim, bias=False)
        frequency = 1.0 / 10_000 ** (torch.arange(0, self.head_dim, 2) / self.head_dim)
        self.register_buffer("inv_freq", frequency, persistent=False)
        self.fc = nn.Linear(dim, 40)

    def attend(self, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        q = self.wq(x).view(b, n, self.heads, self.head_dim).transpose(1, 2)
        k = self.wk(x).view(b, n, self.kv_heads, self.head_dim).transpose(1, 2)
        v = self.wv(x).view(b, n, self.kv_heads, self.head_dim).transpose(1, 2)
        angles = torch.outer(torch.arange(n, device=x.device, dtype=x.dtype), self.inv_freq).repeat(1, 2)
        q, k = (rotate(t, angles.cos(), angles.sin()) for t in (q, k))
        groups = self.heads // self.kv_heads
        k = k[:, :, None].expand(b, self.kv_heads, groups, n, self.head_dim).reshape(b, self.heads, n, self.head_dim)
        v = v.repeat_interleave(groups, dim=1)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.wo(y.transpose(1, 2).reshape(b, n, -1))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + self.attend(self.norm1(x))
        h = self.norm2(x)
        return self.fc(x + self.down(F.silu(self.gate(h)) * self.up(h)))


class RotarySdpa(nn.Module):
    """Interleaved rotary positions on all tokens but the first, then PyTorch's own scale, which a smaller head changes."""

    def __init__(self, dim: int = 48, heads: int = 2, tokens: int = 12) -> None:
        super().__init__()
        self.heads = heads
        self.q_bias, self.v_bias = nn.Parameter(torch.zeros(dim)), nn.Parameter(torch.zeros(dim))
        self.register_buffer("k_bias", torch.zeros(dim), persistent=False)
        self.qkv, self.proj, self.fc = nn.Linear(24, 3 * dim, bias=False), nn.Linear(dim, 64), nn.Linear(64, 10)
        self.register_buffer("sin", torch.rand(tokens - 1, dim // heads))
        self.register_buffer("cos", torch.rand(tokens - 1, dim // heads))

    def rotate(self, x: Tensor) -> Tensor:
        first, rest = x[:, :, :1], x[:, :, 1:]
        turned = torch.stack((-rest[..., 1::2], rest[..., ::2]), -1).reshape(rest.shape)
        return torch.cat((first, rest * self.cos + turned * self.sin), 2).type_as(x)

    def forward(self, x: Tensor) -> Tensor:
        qkv = F.linear(x, self.qkv.weight, torch.cat((self.q_bias, self.k_bias, self.v_bias)))
        q, k, v = qkv.reshape(*x.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(self.rotate(q), self.rotate(k), v)
        return self.fc(self.proj(x.transpose(1, 2).flatten(2)).relu().mean(1))


class MultiQuery(nn.Module):
    """One key-value head for all query heads; a fused projection split by uneven sizes."""

    def __init__(self, dim: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, dim // heads
        self.embed = nn.Linear(24, dim)
        self.fused = nn.Linear(dim, dim + 2 * self.head_dim)
        self.out = nn.Linear(dim, dim)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b, n, _dim = x.shape
        q, k, v = self.fused(x).split([self.heads * self.head_dim, self.head_dim, self.head_dim], dim=-1)
        q = q.view(b, n, self.heads, self.head_dim).transpose(1, 2)
        y = F.scaled_dot_product_attention(q, k.unsqueeze(1), v.unsqueeze(1), scale=0.25)
        return self.fc((x + self.out(y.transpose(1, 2).flatten(2))).mean(1))


class WindowAttention(nn.Module):
    """Swin: shifted windows and a relative position table with one column per head."""

    def __init__(self, dim: int = 64, heads: int = 4, window: int = 4) -> None:
        super().__init__()
        self.dim, self.heads, self.window = dim, heads, window
        self.stem = nn.Conv2d(3, dim, 3, padding=1)
        self.norm = nn.LayerNorm(dim)
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.table = nn.Parameter(torch.randn((2 * window - 1) ** 2, heads))
        grid = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")).flatten(1)
        offset = grid[:, :, None] - grid[:, None, :] + window - 1
        self.register_buffer("index", offset[0] * (2 * window - 1) + offset[1])
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x, w = self.stem(x).permute(0, 2, 3, 1), self.window
        b, height, width, c = x.shape
        y = torch.roll(self.norm(x), shifts=(-2, -2), dims=(1, 2))
        y = y.view(b, height // w, w, width // w, w, c).transpose(2, 3).reshape(-1, w * w, c)
        qkv = self.qkv(y).reshape(-1, w * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        attn = qkv[0] * (self.dim // self.heads) ** -0.5 @ qkv[1].transpose(-2, -1)
        bias = self.table[self.index.view(-1)].view(w * w, w * w, -1).permute(2, 0, 1).contiguous()
        y = ((attn + bias.unsqueeze(0)).softmax(-1) @ qkv[2]).transpose(1, 2).reshape(-1, w * w, c)
        y = self.proj(y).view(b, height // w, width // w, w, w, c).transpose(2, 3).reshape(b, height, width, c)
        return self.fc((x + torch.roll(y, shifts=(2, 2), dims=(1, 2))).mean((1, 2)))


class LinearAttention(nn.Module):
    """Softmax over tokens for keys, over the channels of a head for queries; context = k^T v by einsum."""

    def __init__(self, dim: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.stem = nn.Conv2d(3, dim, 3, padding=1)
        self.to_qkv = nn.Conv2d(dim, dim * 3, 1, bias=False)
        self.to_out = nn.Conv2d(dim, dim, 1)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, _c, h, w = x.shape
        q, k, v = (t.reshape(b, self.heads, -1, h * w) for t in self.to_qkv(x).chunk(3, dim=1))
        context = torch.einsum("bhdn,bhen->bhde", k.softmax(dim=-1), v)
        out = torch.einsum("bhde,bhdn->bhen", context, q.softmax(dim=-2)).reshape(b, -1, h, w)
        return self.fc((x + self.to_out(out)).mean((2, 3)))


class CosineAttention(nn.Module):
    """Swin V2 / XCiT: normalised queries and keys, a learned logit scale per head, attention between channels."""

    def __init__(self, dim: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.embed = nn.Linear(24, dim)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 4, 1).unbind(0)
        q, k = F.normalize(q, dim=-1), F.normalize(k, dim=-1)  # over tokens: exact under pruning
        attn = (q @ k.transpose(-2, -1) * self.temperature).softmax(dim=-1)  # over channels: approximate
        return self.fc((x + self.proj((attn @ v).permute(0, 3, 1, 2).reshape(b, n, -1))).mean(1))


class ClassToken(nn.Module):
    """ViT: patches by convolution, class token expanded and concatenated, positions added, LayerScale."""

    def __init__(self, dim: int = 64, heads: int = 4) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, stride=4)
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 17, dim))
        self.block = FusedBlock(dim, heads)
        self.gamma = nn.Parameter(0.5 * torch.ones(dim))
        self.fc = nn.Linear(dim, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        x = x + self.gamma * self.block(x)
        return self.fc(x[:, 0])


class FusedBlock(nn.Module):
    """all_head_size arithmetic as in BERT, with `x.size()[:-1] + (...)` views."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size = heads, dim // heads
        self.all_head_size = heads * self.attention_head_size
        self.query, self.key, self.value = (nn.Linear(dim, self.all_head_size) for _ in range(3))
        self.dense = nn.Linear(self.all_head_size, dim)

    def split_heads(self, x: Tensor) -> Tensor:
        return x.view(*x.size()[:-1], self.num_attention_heads, self.attention_head_size).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split_heads(f(x)) for f in (self.query, self.key, self.value))
        scores = torch.matmul(q, k.transpose(-1, -2)) / math.sqrt(self.attention_head_size)
        context = torch.matmul(scores.softmax(-1), v).permute(0, 2, 1, 3).contiguous()
        return self.dense(context.view(*context.size()[:-2], self.all_head_size))


class NonLocal(nn.Module):
    """Non-local block: three 1x1 convolutions of half width, matmul over positions, residual."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.inter_channels = width // 2
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.theta, self.phi, self.g = (nn.Conv2d(width, self.inter_channels, 1) for _ in range(3))
        self.out = nn.Conv2d(self.inter_channels, width, 1)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        b, side = x.size(0), x.shape[2:]
        theta, phi, g = (f(x).view(b, self.inter_channels, -1) for f in (self.theta, self.phi, self.g))
        y = torch.bmm(torch.bmm(theta.permute(0, 2, 1), phi).softmax(-1), g.permute(0, 2, 1))
        y = y.permute(0, 2, 1).contiguous().view(b, self.inter_channels, *side)
        return self.fc((x + self.out(y)).mean((2, 3)))


class CausalQueries(nn.Module):
    """Mixed tokens ask, others answer, and `is_causal` shows the n-th the first n answers: whoever goes shifts the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(12, 16)
        self.embed = nn.Linear(20, 32)
        self.key, self.value = nn.Linear(32, 24), nn.Linear(32, 24)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        memory = self.embed(memory).relu()
        k, v = self.key(memory), self.value(memory)
        return self.fc(F.scaled_dot_product_attention(self.mix(x.mT).mT, k, v, is_causal=True).sum(1))


class CausalKeys(nn.Module):
    """The other way round: others ask, the mixed tokens answer."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(12, 16)
        self.embed = nn.Linear(20, 32)
        self.query = nn.Linear(32, 24)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q, kv = self.query(self.embed(memory).relu()), self.mix(x.mT).mT
        return self.fc(F.scaled_dot_product_attention(q, kv, kv, is_causal=True).sum(1))


class CausalTokens(nn.Module):
    """The mixed tokens ask and answer: those that are left keep their order."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(12, 16)
        self.query, self.key, self.value = (nn.Linear(24, 16, bias=False) for _ in range(3))
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mix(x.mT).mT
        out = F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x), is_causal=True)
        return self.fc(out.sum(1))


CASES = {
    "attention_einsum": Case(build=seeded(EinsumAttention), inputs=SEQUENCE, locked=FC),
    "attention_fused_qkv": Case(build=seeded(FusedQkv), inputs=SEQUENCE, locked=FC),
    "attention_runtime_scale": Case(build=seeded(RuntimeScale), inputs=SEQUENCE, locked=FC),
    "attention_sdpa": Case(build=seeded(ScaledDotProduct), inputs=tokens((2, 12), high=40), locked=FC),
    "gqa_rotary": Case(build=seeded(RotaryGqa), inputs=tokens((2, 12), high=40), locked=FC, approximate=True),
    "rotary_sdpa": Case(build=seeded(RotarySdpa), inputs=SEQUENCE, locked=FC),
    "multi_query": Case(build=seeded(MultiQuery), inputs=SEQUENCE, locked=FC),
    "window_attention": Case(build=seeded(WindowAttention), inputs=IMAGE, locked=FC, approximate=True),
    "linear_attention": Case(build=seeded(LinearAttention), inputs=IMAGE, locked=FC, approximate=True),
    "channel_attention_cosine": Case(build=seeded(CosineAttention), inputs=SEQUENCE, locked=FC, approximate=True),
    "class_token": Case(build=seeded(ClassToken), inputs=IMAGE, locked=FC),
    "non_local": Case(build=seeded(NonLocal), inputs=IMAGE, locked=FC),
    "causal_queries": Case(build=seeded(CausalQueries), inputs=normal((2, 12, 24), (2, 16, 20)), locked=MIX),
    "causal_keys": Case(build=seeded(CausalKeys), inputs=normal((2, 12, 24), (2, 10, 20)), locked=MIX),
    "causal_tokens": Case(build=seeded(CausalTokens), inputs=SEQUENCE, locked=FC, approximate=True),
}
