"""SmolLM2-135M's shape with random weights in PyTorch and transformers, f32 on the CPU.

    python torch_decoder.py TASK [REPEATS]

The counterpart of `ebb bench speed`: the same tasks, counted the same way, one
task a process, one line of JSON. Decoding is a plain greedy loop over the model's own cache, which
has less around it than `generate`. THREADS says how many threads (2).
"""

import json
import os
import resource
import statistics
import sys
import time

import torch
from transformers import AutoModelForCausalLM, LlamaConfig

ROWS, POSITIONS, MADE = 2, 256, 64
TASKS = ("forward", "backward", "adamw", "lora", "decode")
if len(sys.argv) < 2 or sys.argv[1] not in TASKS:
    sys.exit(f"say which task: {', '.join(TASKS)}")
task = sys.argv[1]
repeats = int(sys.argv[2]) if len(sys.argv) > 2 else 3
torch.set_num_threads(int(os.environ.get("THREADS", "2")))
torch.manual_seed(0)
config = LlamaConfig(
    hidden_size=576,
    initializer_range=0.0417,
    intermediate_size=1536,
    max_position_embeddings=8192,
    num_attention_heads=9,
    num_hidden_layers=30,
    num_key_value_heads=3,
    rms_norm_eps=1e-5,
    rope_parameters=dict(rope_type="default", rope_theta=100000.0),
    tie_word_embeddings=True,
    vocab_size=49152,
    bos_token_id=None,
    eos_token_id=None,
)
model = AutoModelForCausalLM.from_config(config).float().eval()
ids = torch.randint(config.vocab_size, (ROWS, POSITIONS))


def forward():
    start = time.perf_counter()
    with torch.no_grad():
        model(input_ids=ids, use_cache=False).logits[0, 0, 0].item()
    return time.perf_counter() - start


def backward():
    start = time.perf_counter()
    model.zero_grad(set_to_none=True)
    model(input_ids=ids, labels=ids, use_cache=False).loss.backward()
    return time.perf_counter() - start


def adamw():
    seconds = backward()
    start = time.perf_counter()
    optimizer.step()
    return seconds + time.perf_counter() - start


@torch.no_grad()
def decode():
    out = model(input_ids=ids[:, : POSITIONS - MADE], use_cache=True, logits_to_keep=1)
    token = out.logits[:, -1].argmax(-1, keepdim=True)
    start = time.perf_counter()
    for _ in range(MADE - 1):
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True)
        token = out.logits[:, -1].argmax(-1, keepdim=True)
    token.tolist()
    return time.perf_counter() - start


if task == "lora":
    import peft

    maps = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = peft.get_peft_model(model, peft.LoraConfig(r=16, lora_alpha=16, target_modules=maps))
if task in ("adamw", "lora"):
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, weight_decay=0.01)
run = {"forward": forward, "backward": backward, "adamw": adamw, "lora": adamw, "decode": decode}[task]
run()  # the first one warms up
median = statistics.median(run() for _ in range(repeats))
tokens = ROWS * (MADE - 1) if task == "decode" else ROWS * POSITIONS
print(
    json.dumps(
        dict(
            system="torch",
            task=task,
            rows=ROWS,
            positions=POSITIONS,
            repeats=repeats,
            median_s=median,
            rate=tokens / median,
            peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        )
    )
)
