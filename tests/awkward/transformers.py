"""torch's own attention and transformer layers: self and cross, encoder and decoder, pre-norm and masked."""

from torch import Tensor, nn

from tests.models import Case, normal, seeded, tokens

FC = frozenset({"fc"})


class SelfAttention(nn.Module):
    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.embed = nn.Linear(24, dim)
        self.attention = nn.MultiheadAttention(dim, 4, batch_first=True)
        self.hidden = nn.Linear(dim, 96)
        self.fc = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.fc(self.hidden(x).relu().mean(1))


class CrossAttention(nn.Module):
    """Sequence first, keys and values of other widths, weights returned and used."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.query, self.memory = nn.Linear(24, dim), nn.Linear(20, 48)
        self.attention = nn.MultiheadAttention(dim, 4, kdim=48, vdim=48)
        self.hidden = nn.Linear(dim, 96)
        self.fc = nn.Linear(96, 10)

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        q, kv = self.query(x), self.memory(memory)
        y, weights = self.attention(q, kv, kv)
        return self.fc(self.hidden(q + y).relu().mean(0)), weights


class Encoder(nn.Module):
    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, dim)
        layer = nn.TransformerEncoderLayer(dim, nhead=4, dim_feedforward=128, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, num_layers=2, enable_nested_tensor=False)
        self.fc = nn.Linear(dim, 10)

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc(self.encoder(self.embed(ids)).mean(1))


class PreNormEncoder(nn.Module):
    """Pre-norm, GELU, a final norm, a key padding mask computed from the ids."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, dim, padding_idx=0)
        layer = nn.TransformerEncoderLayer(dim, 4, 128, activation="gelu", norm_first=True, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, norm=nn.LayerNorm(dim), enable_nested_tensor=False)
        self.fc = nn.Linear(dim, 10)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.encoder(self.embed(ids), src_key_padding_mask=ids == 0)
        return self.fc(x[:, 0])


class Translator(nn.Module):
    """`nn.TransformerDecoder` over an encoder's memory, sequence first, with a square mask."""

    def __init__(self, dim: int = 48) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(50, dim), nn.Embedding(50, dim)
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(dim, 2, 96), 1, enable_nested_tensor=False)
        self.decoder = nn.TransformerDecoder(nn.TransformerDecoderLayer(dim, 2, 96), 2)
        self.fc = nn.Linear(dim, 50)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.size(0))
        memory = self.encoder(self.source(source))
        return self.fc(self.decoder(self.target(target), memory, tgt_mask=mask))


CASES = {
    "mha_self": Case(build=seeded(SelfAttention), inputs=normal((2, 12, 24)), locked=FC),
    "mha_cross": Case(build=seeded(CrossAttention), inputs=normal((12, 2, 24), (9, 2, 20)), locked=FC),
    "transformer_encoder": Case(build=seeded(Encoder), inputs=tokens((2, 12), high=50), locked=FC, approximate=True),
    "transformer_encoder_prenorm": Case(
        build=seeded(PreNormEncoder), inputs=tokens((2, 12), high=50), locked=FC, approximate=True
    ),
    "transformer_decoder": Case(
        build=seeded(Translator), inputs=tokens((10, 2), (8, 2), high=50), locked=FC, approximate=True
    ),
}
