"""Writes surprise.json: what the Surprise library makes of the last row of a small table.

    python3 -m venv venv && venv/bin/pip install "numpy<2" scikit-surprise==1.1.5
    venv/bin/python surprise_numbers.py > surprise.json
"""

import json

import numpy as np
from surprise import SVD, BaselineOnly, Dataset, KNNBaseline, Reader

rng = np.random.default_rng(7)
rows, columns = 12, 40
z = (
    0.4
    + 0.5 * rng.standard_normal((rows, 1))
    + 0.6 * rng.standard_normal((1, columns))
    + rng.standard_normal((rows, 2)) @ rng.standard_normal((2, columns)) * 0.5
    + 0.1 * rng.standard_normal((rows, columns))
).astype(np.float32)
known = sorted(int(j) for j in rng.choice(columns, 15, replace=False))


def ratings():
    for i in range(rows - 1):
        for j in range(columns):
            yield (i, j, float(z[i, j]), None)
    for j in known:
        yield (rows - 1, j, float(z[rows - 1, j]), None)


train = Dataset(Reader(rating_scale=(-1e9, 1e9))).construct_trainset(list(ratings()))
assert [train.to_inner_iid(j) for j in range(columns)] == list(range(columns))


def forecast(algorithm):
    algorithm.fit(train)
    return [algorithm.predict(rows - 1, j, clip=False).est for j in range(columns)]


sgd = {"method": "sgd", "n_epochs": 1000, "learning_rate": 0.005, "reg": 0.02}
als = {"method": "als", "n_epochs": 100, "reg_i": 10, "reg_u": 15}
first = SVD(n_factors=5, n_epochs=0, init_mean=0, init_std_dev=0.001, random_state=3).fit(train)
svd = SVD(n_factors=5, n_epochs=1000, lr_all=0.005, reg_all=0, init_std_dev=0.001, random_state=3)
# Rows that know a column count as neighbours there, the row itself included: columns that the new
# row knows are no forecasts, and are left out of the comparison by asking for train rows alone.
near = KNNBaseline(k=40, min_k=1, sim_options={"name": "msd", "user_based": True}, bsl_options=sgd, verbose=False)
near.fit(train)
neighbours = []
for j in range(columns):
    others = [(v, r) for v, r in train.ir[j] if v != rows - 1]
    u = rows - 1
    baseline = lambda v: train.global_mean + near.bu[v] + near.bi[j]
    best = sorted(((near.sim[u, v], v, r) for v, r in others), reverse=True)[:40]
    if j not in known:
        assert abs(near.predict(u, j, clip=False).est - (baseline(u) + sum(s * (r - baseline(v)) for s, v, r in best) / sum(s for s, _, _ in best))) < 1e-12
    neighbours.append(baseline(u) + sum(s * (r - baseline(v)) for s, v, r in best) / sum(s for s, _, _ in best))

print(
    json.dumps(
        {
            "rows": rows,
            "columns": columns,
            "z": [float(v) for v in z.ravel()],
            "known": known,
            "additive_sgd": forecast(BaselineOnly(bsl_options=sgd, verbose=False)),
            "additive_als": forecast(BaselineOnly(bsl_options=als, verbose=False)),
            "factors": forecast(svd),
            "neighbours": [float(v) for v in neighbours],
            "p": [float(v) for v in first.pu.ravel()],
            "q": [float(v) for v in first.qi.ravel()],
        },
        indent=None,
    )
)
