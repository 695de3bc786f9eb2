"""Writes values.json: what NumPy says about random curves and resamples, for tests/unit/test_fit_law.c and test_bootstrap.c.

    python3 -m venv venv && venv/bin/pip install numpy && venv/bin/python make.py > values.json

Made with NumPy's PCG64, seed 7. Least squares by lstsq over explicit design matrices, which the product never builds.
"""
import json

import numpy as np

rng = np.random.default_rng(7)
BUDGETS = 64
FROM_K = 4


def at(curve, x):
    if x < curve["x"][0] or x > curve["x"][-1]:
        return np.nan
    return float(np.interp(x, curve["x"], curve["y"]))


def gap(a, b):
    low, high = max(a["x"][0], b["x"][0]), min(a["x"][-1], b["x"][-1])
    if len(a["x"]) < 2 or len(b["x"]) < 2 or not low < high:
        return None
    grid = np.linspace(low, high, BUDGETS)
    return float(np.mean(np.interp(grid, a["x"], a["y"]) - np.interp(grid, b["x"], b["y"])))


def offset_fit(curves):
    """Every budget has a level of its own, every curve but the widest an offset."""
    curves = [c for c in curves if c["k"] >= FROM_K and len(c["x"]) >= 2]
    if len(curves) < 2:
        return None
    starts, ends = sorted(c["x"][0] for c in curves), sorted(c["x"][-1] for c in curves)
    if not starts[1] < ends[-2]:
        return None
    rows, values, used = [], [], []
    for x in np.linspace(starts[1], ends[-2], BUDGETS):
        v = [at(c, x) for c in curves]
        if np.sum(np.isfinite(v)) < 2:
            continue
        for i, y in enumerate(v):
            if np.isfinite(y):
                rows.append((len(used), i))
                values.append(y)
        used.append(x)
    design = np.zeros((len(rows), len(used) + len(curves) - 1))
    for r, (budget, curve) in enumerate(rows):
        design[r, budget] = 1
        if curve < len(curves) - 1:
            design[r, len(used) + curve] = 1
    solution, _, rank, _ = np.linalg.lstsq(design, np.array(values), rcond=None)
    if rank < design.shape[1]:
        raise ValueError("curves that do not connect")
    off = np.array(values) - design @ solution
    base = solution[:len(used)]
    slope = np.polyfit(used, base, 1)[0]
    slope_off = []
    for i in range(len(curves)):
        mine = [r for r, (_, curve) in enumerate(rows) if curve == i]
        slope_off.append(np.polyfit([used[rows[r][0]] for r in mine], off[mine], 1)[0] / slope)
    return {"curves": curves, "k": [c["k"] for c in curves],
            "offset": list(solution[len(used):]) + [0.0],
            "residual": float(np.sqrt(np.mean(off**2))), "slope": float(slope),
            "slope_off": [float(s) for s in slope_off],
            "slope_spread": float(np.sqrt(np.mean(np.square(slope_off))))}


def power_law(curves):
    pts = [(n, c["k"], y) for c in curves if c["k"] >= FROM_K for n, y in zip(c["n"], c["y"])]
    n, k, y = np.array(pts).T
    design = np.column_stack([np.ones(len(n)), np.log(n), np.log(k)])
    beta = np.linalg.lstsq(design, np.log(y), rcond=None)[0]
    return beta, float(np.sqrt(np.mean((np.exp(design @ beta) - y)**2)))


def held_out(curves):
    law, mine = [], []
    for size in sorted({n for c in curves if c["k"] >= FROM_K for n in c["n"]}):
        rest = []
        for c in curves:
            keep = [i for i, n in enumerate(c["n"]) if n != size]
            rest.append({"k": c["k"], **{key: [c[key][i] for i in keep] for key in "xny"}})
        fit = offset_fit([c for c in rest if c["x"]])
        if fit is None:
            continue
        beta, _ = power_law(rest)
        for c in curves:
            for x, n, y in zip(c["x"], c["n"], c["y"]):
                if n != size or c["k"] not in fit["k"]:
                    continue
                levels = [at(d, x) - o for d, o in zip(fit["curves"], fit["offset"])]
                level = np.nanmean(levels) if np.isfinite(levels).any() else np.nan
                if np.isnan(level):
                    continue
                mine.append(level + fit["offset"][fit["k"].index(c["k"])] - y)
                law.append(np.exp(beta @ [1, np.log(n), np.log(c["k"])]) - y)
    return (len(law), float(np.sqrt(np.mean(np.square(law)))) if law else None,
            float(np.sqrt(np.mean(np.square(mine)))) if mine else None)


def random_curves():
    n_sizes = int(rng.integers(4, 9))
    sizes = np.sort(10 ** rng.uniform(7, 9, n_sizes))
    curves = []
    for k in [3, 4, 5, 6, 8, 16]:
        keep = [s for s in sizes if rng.uniform() < 0.9]
        if len(keep) < 2:
            keep = list(sizes[:2])
        y = [3.0 - 0.12 * np.log2(s / 1e8) + 0.4 / k**2 + rng.normal(0, 0.02) for s in keep]
        curves.append({"k": k, "n": [float(s) for s in keep],
                       "x": [float(np.log2(s * (k + 0.25 * (k < 16)))) for s in keep],
                       "y": [float(v) for v in y]})
    return curves


groups = []
while len(groups) < 12:
    curves = random_curves()
    try:
        fit = offset_fit(curves)
        n, law_error, curve_error = held_out(curves)
    except ValueError:
        continue
    beta, residual = power_law(curves)
    groups.append({
        "curves": curves,
        "gaps": [gap(c, curves[-1]) for c in curves],
        "fit": {key: v for key, v in fit.items() if key != "curves"},
        "law": {"c": float(beta[0]), "a": float(beta[1]), "b": float(beta[2]), "residual": residual,
                "held_out": n, "law_error": law_error, "curve_error": curve_error},
    })

spreads = []
for n in [2, 3, 10, 41, 1000]:
    v = rng.normal(size=n)
    low, high = np.quantile(v, [0.025, 0.975])
    spreads.append({"v": v.tolist(), "low": float(low), "high": float(high),
                    "spread": float(np.std(v, ddof=1))})

# Draws: the generator of base/rng.h written once more, then plain indexing.
MASK = (1 << 64) - 1


class SplitMix:
    def __init__(self, state):
        self.state = state

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)


def drawn(seed, task, n, resample):
    r = SplitMix(seed)
    for part in (task, n, resample):
        r.state = r.next() ^ part
    r.state = r.next()
    return [(r.next() * n) >> 64 for _ in range(n)]


draws = []
for task, n in [(0, 7), (1, 64), (3, 100)]:
    right = (rng.uniform(size=n) < 0.6).astype(int)
    nll = rng.gamma(50, 20, size=n).astype(np.float32)
    tokens = rng.integers(10, 400, size=n)
    picks = [drawn(5, task, n, r) for r in range(70)]
    draws.append({"seed": 5, "task": task, "right": right.tolist(), "nll": nll.astype(float).tolist(),
                  "tokens": tokens.tolist(),
                  "accuracy": [float(right[p].mean()) for p in picks],
                  "per_token": [float(nll[p].astype(float).sum() / tokens[p].sum()) for p in picks]})

print(json.dumps({"groups": groups, "spreads": spreads, "draws": draws}))
