"""Writes values.json: what SciPy says about random inputs, for tests/unit/test_stat.c.

    python3 -m venv venv && venv/bin/pip install scipy && venv/bin/python make.py > values.json

Made with SciPy 1.17.1, NumPy's PCG64, seed 4. Every second case is rounded so that it has ties.
"""
import json

import numpy as np
from scipy import stats

rng = np.random.default_rng(4)


def pair(n, decimals):
    x = rng.normal(size=n)
    y = 0.6 * x + rng.normal(size=n)
    return (x, y) if decimals is None else (x.round(decimals), y.round(decimals))


pairs = []
for i in range(24):
    n = int(rng.integers(3, 40))
    x, y = pair(n, None if i % 2 == 0 else 0)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        continue
    pairs.append({
        "x": x.tolist(), "y": y.tolist(),
        "pearson": float(stats.pearsonr(x, y).statistic),
        "spearman": float(stats.spearmanr(x, y).statistic),
        "kendall": float(stats.kendalltau(x, y).statistic),
        "ranks": stats.rankdata(x).tolist(),
    })

blocks = []
for i in range(12):
    rows, columns = int(rng.integers(3, 12)), int(rng.integers(3, 7))
    v = rng.normal(size=(rows, columns)) + 0.4 * np.arange(columns)
    if i % 2 == 1:
        v = v.round(0)
    test = stats.friedmanchisquare(*v.T)
    blocks.append({"v": v.tolist(), "statistic": float(test.statistic), "p": float(test.pvalue),
                   "mean_rank": np.mean([stats.rankdata(row) for row in v], axis=0).tolist()})

lines = []
for i in range(8):
    x = np.sort(rng.uniform(20, 40, size=int(rng.integers(2, 9))))
    y = rng.normal(size=x.size)
    at = rng.uniform(x[0], x[-1], size=5)
    lines.append({"x": x.tolist(), "y": y.tolist(), "at": at.tolist(),
                  "value": np.interp(at, x, y).tolist()})

quantiles = []
for i in range(6):
    v = rng.normal(size=int(rng.integers(2, 60)))
    quantiles.append({"v": v.tolist(), "low": float(np.quantile(v, 0.025)),
                      "high": float(np.quantile(v, 0.975))})

chi2 = [{"x": float(x), "df": df, "above": float(stats.chi2.sf(x, df))}
        for df in range(1, 9) for x in (0.01, 0.7, 3.0, 11.0, 60.0)]
print(json.dumps({"pairs": pairs, "blocks": blocks, "lines": lines, "quantiles": quantiles,
                  "chi2": chi2}, indent=None, separators=(",", ":")))
