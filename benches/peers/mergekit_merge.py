"""A merge by mergekit, in one process.

    python mergekit_merge.py METHOD DENSITY BASE OUT CACHE SOURCE...

The counterpart of `ebb merge BASE SOURCE... -m METHOD -o OUT`. METHOD is mergekit's name; a SOURCE with
an adapter_config.json is merged as BASE+SOURCE, for which mergekit first writes the base with that
adapter in it into CACHE. 32-bit floats throughout, and the options that its help calls faster: lazy
unpickling does not apply to safetensors, asynchronous writes do. THREADS says how many threads (2).
One line of JSON.
"""

import json
import os
import resource
import sys
import time

method, density, base, out, cache = sys.argv[1:6]
sources = sys.argv[6:]
threads = int(os.environ.get("THREADS", "2"))

begun = time.perf_counter()
import torch  # noqa: E402
from mergekit.config import MergeConfiguration  # noqa: E402
from mergekit.merge import run_merge  # noqa: E402
from mergekit.options import MergeOptions  # noqa: E402

torch.set_num_threads(threads)
imported = time.perf_counter()


def named(source):
    is_adapter = os.path.exists(os.path.join(source, "adapter_config.json"))
    return f"{base}+{source}" if is_adapter else source


parameters = {"weight": 1.0}
if method == "ties":
    parameters["density"] = float(density)
models = [{"model": named(source), "parameters": parameters} for source in sources]
config = MergeConfiguration.model_validate(
    {
        "models": [{"model": base}] + models,
        "base_model": base,
        "merge_method": method,
        "dtype": "float32",
        "parameters": {"normalize": method == "ties"},
    }
)
options = MergeOptions(
    lora_merge_cache=cache,
    num_threads=threads,
    async_write=True,
    quiet=True,
    write_model_card=False,
)
run_merge(config, out, options=options)
print(
    json.dumps(
        {
            "seconds": time.perf_counter() - imported,
            "import_s": imported - begun,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }
    )
)
