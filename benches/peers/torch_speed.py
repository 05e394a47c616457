"""Training steps of small networks in PyTorch, f32 on the CPU.

    python torch_speed.py TASK [REPEATS]

The counterpart of `ebb bench speed`: the same networks, counted the same way, one task a process,
one line of JSON. THREADS says how many threads (2).
"""

import json
import os
import resource
import statistics
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F

TASKS = ("mlp32", "mlp128", "cnn", "small")
if len(sys.argv) < 2 or sys.argv[1] not in TASKS:
    sys.exit(f"say which task: {', '.join(TASKS)}")
task = sys.argv[1]
repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 3
torch.set_num_threads(int(os.environ.get("THREADS", "2")))
torch.manual_seed(0)


def mlp():
    return nn.Sequential(
        nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU(), nn.Linear(400, 10)
    )


def cnn():
    def layer(i, o):
        return [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()]

    layers, inputs = [], 3
    for outputs in (32, 64, 128):
        layers += layer(inputs, outputs) + layer(outputs, outputs) + [nn.MaxPool2d(2)]
        inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10))


D, L, H, T, B, V = 256, 6, 8, 128, 8, 8192


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.behind = nn.LayerNorm(D), nn.LayerNorm(D)
        self.qkv, self.out = nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.up, self.down = nn.Linear(D, 4 * D), nn.Linear(4 * D, D)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.before(x)).view(b, t, 3, H, D // H).permute(2, 0, 3, 1, 4)
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(b, t, D))
        return x + self.down(F.gelu(self.up(self.behind(x))))


class Small(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(V, D), nn.Parameter(torch.randn(T, D) * 0.02)
        self.blocks = nn.ModuleList(Block() for _ in range(L))
        self.last, self.head = nn.LayerNorm(D), nn.Linear(D, V, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, x):
        x = self.tokens(x) + self.places
        for block in self.blocks:
            x = block(x)
        return self.head(self.last(x)).view(-1, V)


if task == "small":
    model, units = Small(), B * T
    x, y = torch.randint(V, (B, T)), torch.randint(V, (B * T,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.01)
else:
    rows = 32 if task == "cnn" else int(task[3:])
    model, units = (cnn() if task == "cnn" else mlp()), 1
    x = torch.randn(rows, 3, 32, 32) if task == "cnn" else torch.randn(rows, 784)
    y = torch.randint(10, (rows,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)


def step():
    start = time.perf_counter()
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    return time.perf_counter() - start


for _ in range(max(2, repeats // 10)):
    step()
median = statistics.median(step() for _ in range(repeats))
print(
    json.dumps(
        dict(
            system="torch",
            task=task,
            repeats=repeats,
            median_s=median,
            rate=units / median,
            peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )
    )
)
