"""Insert, draw, update and delete in DeepMind's Reverb: records.

    venv/bin/pip install dm-reverb==0.14.0 "tensorflow-cpu==2.14.*" "numpy<2"
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
import reverb

records, batch, draws = int(sys.argv[1]), 128, 100
rng = np.random.default_rng(0)


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


def table(name, sampler):
    return reverb.Table(
        name, sampler=sampler, remover=reverb.selectors.Fifo(), max_size=records,
        rate_limiter=reverb.rate_limiters.MinSize(1))


before = resident()
server = reverb.Server([
    table("uniform", reverb.selectors.Uniform()),
    table("weighted", reverb.selectors.Prioritized(1.0)),
])
client = reverb.Client(f"localhost:{server.port}")
inputs = rng.integers(0, 256, (records, 64), dtype=np.uint8)
logits = np.zeros(10, np.float32)
weights = np.exp(rng.standard_normal(records))
out = {"records": records}

begun = time.perf_counter()
with client.trajectory_writer(num_keep_alive_refs=1) as writer:
    for i in range(records):
        writer.append({"input": inputs[i], "logits": logits})
        one = {"input": writer.history["input"][-1:], "logits": writer.history["logits"][-1:]}
        writer.create_item("uniform", 1.0, one)
        writer.create_item("weighted", float(weights[i]), one)
        if i % 1000 == 999:
            writer.flush()
out["inserts_per_s"] = records / (time.perf_counter() - begun)
out["resident_bytes_per_record"] = (resident() - before - inputs.nbytes) / records


def draw(name):
    return [s[0].info.key if isinstance(s, list) else s.info.key for s in client.sample(name, num_samples=batch)]


for name in ["uniform", "weighted"]:
    draw(name)
    begun = time.perf_counter()
    keys = [draw(name) for _ in range(draws)]
    out[f"{name}_draws_per_s"] = draws / (time.perf_counter() - begun)
begun = time.perf_counter()
for some in keys:
    client.mutate_priorities("weighted", updates={key: float(w) for key, w in zip(some, weights)})
out["score_updates_per_s"] = draws * batch / (time.perf_counter() - begun)
begun = time.perf_counter()
for some in keys:
    client.mutate_priorities("weighted", deletes=some)
out["deletes_per_s"] = len({key for some in keys for key in some}) / (time.perf_counter() - begun)
print(json.dumps(out))
