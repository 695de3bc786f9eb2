"""gpu_ratio.py BENCHMARK SHAPE KEY GOAL OURS THEIRS: one JSON line with the ratio of two results and whether they agree."""
import json
import sys

name, shape, key, goal, ours, theirs = sys.argv[1:]
a, b = json.loads(ours), json.loads(theirs)
ratio = b[key] / a[key] if key == "seconds" else a[key] / b[key]
out = {"benchmark": name, "shape": shape, "isobit": a[key], "transformers": b[key], "ratio": round(ratio, 3),
       "goal": float(goal)}
if "nll" in a:
    out["nll_off_by"] = round(abs(a["nll"] / b["nll"] - 1), 7)
if "of_limit" in a:
    out["of_limit"] = a["of_limit"]
print(json.dumps(out))
sys.exit(0 if out.get("nll_off_by", 0) < 1e-3 else 1)
