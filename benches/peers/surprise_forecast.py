"""Some passes of Surprise's SVD over an association matrix: tasks, examples, known, passes, and how many
to make for the error that they come to (0: none).

    venv/bin/pip install "numpy<2" scikit-surprise==1.1.5
"""

import json
import resource
import sys
import time

import numpy as np
from surprise import SVD, Dataset, Reader

tasks, examples, known, passes, every = map(int, sys.argv[1:6])
rng = np.random.default_rng(0)
rows, columns = rng.random((tasks + 1, 6)) - 0.5, rng.random((examples, 6)) - 0.5
z = rows[:, :1] + columns[:, 0] + 2 * rows[:, 1:] @ columns[:, 1:].T
z += 0.1 * (rng.random(z.shape) - 0.5)
seeds = rng.choice(examples, known, replace=False)


def ratings():
    for i in range(tasks):
        for j, value in enumerate(z[i].tolist()):
            yield (i, j, value, None)
    for j in seeds.tolist():
        yield (tasks, j, float(z[tasks, j]), None)


train = Dataset(Reader(rating_scale=(-1e9, 1e9))).construct_trainset(list(ratings()))
begun = time.perf_counter()
SVD(n_factors=5, n_epochs=passes, lr_all=0.005, reg_all=0, init_std_dev=0.001, random_state=0).fit(train)
seconds = time.perf_counter() - begun
rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
rmse = None
if every:
    whole = SVD(n_factors=5, n_epochs=every, lr_all=0.005, reg_all=0, init_std_dev=0.001, random_state=0)
    whole.fit(train)
    unknown = np.setdiff1d(np.arange(examples), seeds)
    found = np.array([whole.predict(tasks, int(j), clip=False).est for j in unknown])
    rmse = float(np.sqrt(np.mean((found - z[tasks, unknown]) ** 2)))
print(json.dumps({"passes_s": seconds, "rss_mb": rss, "rmse": rmse}))
