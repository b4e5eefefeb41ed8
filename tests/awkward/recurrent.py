"""LSTM, GRU and their cells: gates stacked along one axis, states that tie inputs to outputs."""

import torch
from torch import Tensor, nn

from tests.models import IMAGE, Case, normal, seeded, tokens

FC = frozenset({"fc"})
SEQUENCE = normal((2, 12, 24))


class LstmHead(nn.Module):
    """Convolutions read rows, an LSTM walks them (CRNN)."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.lstm = nn.LSTM(16 * 16, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu().permute(0, 3, 1, 2).flatten(2)
        return self.fc(self.lstm(x)[0])


class BidirectionalGru(nn.Module):
    """Two layers, both directions; the last hidden states of both are concatenated."""

    def __init__(self, hidden: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(60, 32)
        self.gru = nn.GRU(32, hidden, num_layers=2, bidirectional=True, batch_first=True, dropout=0.2)
        self.fc = nn.Linear(2 * hidden, 10)

    def forward(self, ids: Tensor) -> Tensor:
        _, h = self.gru(self.embed(ids))
        return self.fc(torch.cat((h[-2], h[-1]), dim=1))


class StackedLstm(nn.Module):
    """Three layers, sequence first, zero states made in forward from stored sizes, attention over time."""

    def __init__(self, hidden: int = 32, layers: int = 3) -> None:
        super().__init__()
        self.hidden, self.layers = hidden, layers
        self.embed = nn.Linear(24, 32)
        self.lstm = nn.LSTM(32, hidden, layers)
        self.score = nn.Linear(hidden, 1)
        self.fc = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        h0 = torch.zeros(self.layers, x.size(1), self.hidden, dtype=x.dtype, device=x.device)
        out, _ = self.lstm(self.embed(x), (h0, torch.zeros_like(h0)))
        return self.fc((out * self.score(out).softmax(0)).sum(0))


class BidirectionalLstm(nn.Module):
    """A tagger: every output is read, biases off."""

    def __init__(self, hidden: int = 24) -> None:
        super().__init__()
        self.embed = nn.Embedding(60, 32)
        self.lstm = nn.LSTM(32, hidden, 1, bias=False, batch_first=True, bidirectional=True)
        self.hidden = nn.Linear(2 * hidden, 32)
        self.fc = nn.Linear(32, 10)

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc(self.hidden(self.lstm(self.embed(ids))[0]).tanh())


class ProjectedLstm(nn.Module):
    """`proj_size`: the output is narrower than the cell."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(24, 32)
        self.lstm = nn.LSTM(32, 48, proj_size=24, batch_first=True)
        self.fc = nn.Linear(24, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(self.embed(x))[0][:, -1])


class Cells(nn.Module):
    """`LSTMCell` feeding `GRUCell` in a loop over time."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.hidden_size = hidden
        self.lstm = nn.LSTMCell(24, hidden)
        self.gru = nn.GRUCell(hidden, 2 * hidden)
        self.fc = nn.Linear(2 * hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.size(0), self.hidden_size)
        g = x.new_zeros(x.size(0), 2 * self.hidden_size)
        for t in range(x.size(1)):
            h, c = self.lstm(x[:, t], (h, c))
            g = self.gru(h, g)
        return self.fc(g)


class ElmanNet(nn.Module):
    """`nn.RNN` with relu, then a packed decoder that starts from the encoder's state."""

    def __init__(self, hidden: int = 32) -> None:
        super().__init__()
        self.encoder = nn.RNN(24, hidden, nonlinearity="relu", batch_first=True)
        self.decoder = nn.GRU(24, hidden, batch_first=True)
        self.fc = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        _, h = self.encoder(x)
        return self.fc(self.decoder(x.flip(1), h)[0])


class ConvLstm(nn.Module):
    """A convolutional LSTM cell: one convolution makes four gates, split by the stored hidden width."""

    def __init__(self, hidden: int = 24) -> None:
        super().__init__()
        self.hidden_dim = hidden
        self.conv = nn.Conv2d(3 + hidden, 4 * hidden, 3, padding=1)
        self.head = nn.Conv2d(hidden, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.zeros(x.size(0), self.hidden_dim, *x.shape[-2:], dtype=x.dtype)
        c = torch.zeros_like(h)
        for _ in range(3):
            i, f, o, g = torch.split(self.conv(torch.cat([x, h], dim=1)), self.hidden_dim, dim=1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h)


class ChannelsAsTime(nn.Module):
    """A recurrent layer walks over the channels: each step reads what the earlier ones left, so no channel may go."""

    def __init__(self, layer: type[nn.RNNBase], batch_first: bool) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 16, 3, padding=1)
        self.layer = layer(24, 32, batch_first=batch_first)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        time = 1 if self.layer.batch_first else 0
        return self.fc(self.layer(x if time else x.transpose(0, 1))[0].sum(time))


class UnbatchedTime(nn.Module):
    """The same with one sequence, not a batch of them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(24, 16)
        self.lstm = nn.LSTM(12, 32)
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.lstm(self.embed(x[0]).relu().t())[0].sum(0))


class ChannelsAsBatch(nn.Module):
    """A recurrent layer reads the curve of every channel on its own: the channels are its batch, and may go."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(3, 16, 3, padding=1)
        self.lstm = nn.LSTM(1, 32)
        self.fc = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        _, (h, _) = self.lstm(self.conv(x)[0].relu().t().unsqueeze(-1))
        return self.fc(h[0].sum(1))


def over_time(layer: type[nn.RNNBase], batch_first: bool) -> Case:
    build = seeded(lambda: ChannelsAsTime(layer, batch_first))
    return Case(build=build, inputs=normal((2, 3, 24)), locked=frozenset({"conv", "fc"}))


CASES = {
    "lstm_over_channels": over_time(nn.LSTM, True),
    "gru_over_channels": over_time(nn.GRU, False),
    "rnn_over_channels": over_time(nn.RNN, True),
    "lstm_unbatched_time": Case(build=seeded(UnbatchedTime), inputs=SEQUENCE, locked=frozenset({"embed", "fc"})),
    "lstm_channels_as_batch": Case(build=seeded(ChannelsAsBatch), inputs=normal((1, 3, 24)), locked=FC),
    "lstm_head": Case(build=seeded(LstmHead), inputs=IMAGE, locked=FC),
    "gru_bidirectional": Case(build=seeded(BidirectionalGru), inputs=tokens((2, 12), high=60), locked=FC),
    "lstm_stacked": Case(build=seeded(StackedLstm), inputs=normal((12, 2, 24)), locked=FC),
    "lstm_bidirectional": Case(build=seeded(BidirectionalLstm), inputs=tokens((2, 12), high=60), locked=FC),
    "lstm_projected": Case(build=seeded(ProjectedLstm), inputs=SEQUENCE, locked=FC),
    "recurrent_cells": Case(build=seeded(Cells), inputs=SEQUENCE, locked=FC),
    "rnn_to_gru_state": Case(build=seeded(ElmanNet), inputs=SEQUENCE, locked=FC),
    "conv_lstm": Case(build=seeded(ConvLstm), inputs=IMAGE, locked=frozenset({"head"})),
}
