#!/usr/bin/env python3
"""One configuration the usual way: load with transformers, quantize in torch, score as lm-evaluation-harness does.

The loop that a benchmark of ours is compared with. Requests are tokenized jointly, sorted by length and scored in padded
batches with the whole logits matrix, log_softmax and gather; documents are scored window by window (evaluation spec,
sections 1 and 6.1). Prints one JSON object: seconds of each part and the scores, which must agree with ours.

    usual_loop.py --model DIR --k 4 --dtype int --block 64 --data DIR --limit 120 --max-tokens 16384 --batch 16
"""
import argparse
import json
import pathlib
import time

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def read_lines(path, limit):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f][:limit]


def lambada(folder, limit):
    for d in read_lines(folder / "lambada.jsonl", limit):
        context, word = d["text"].rsplit(" ", 1)
        yield 0, [(context, " " + word)]


def winogrande(folder, limit):
    for d in read_lines(folder / "winogrande.jsonl", limit):
        before, after = d["sentence"].split("_", 1)
        yield int(d["answer"]) - 1, [(before + d[o], " " + after.strip()) for o in ("option1", "option2")]


def hellaswag(folder, limit):
    for d in read_lines(folder / "hellaswag.jsonl", limit):
        yield d["label"], [(d["activity_label"] + ": " + d["ctx"], " " + ending) for ending in d["endings"]]


def piqa(folder, limit):
    labels = (folder / "piqa-labels.lst").read_text().split()
    for d, label in zip(read_lines(folder / "piqa.jsonl", limit), labels):
        yield int(label), [("Question: " + d["goal"] + "\nAnswer:", " " + d[s]) for s in ("sol1", "sol2")]


TASKS = {"lambada": lambada, "winogrande": winogrande, "hellaswag": hellaswag, "piqa": piqa}


def join(tok, context, continuation):
    """Token ids and how many of the last ones belong to the continuation; blanks at the seam go to the continuation."""
    stripped = context.rstrip()
    continuation, context = context[len(stripped):] + continuation, stripped
    whole = tok(context + continuation, add_special_tokens=False)["input_ids"]
    return whole, len(whole) - len(tok(context, add_special_tokens=False)["input_ids"])


def quantize_int(w, k, block):
    """Symmetric integer grid per block of the flattened matrix; the block's maximum is kept in fp16 (section 2)."""
    top = 2 ** (k - 1) - 1
    flat = torch.nn.functional.pad(w.flatten().float(), (0, -w.numel() % block)).view(-1, block)
    scale = flat.abs().amax(1, keepdim=True).half().float().clamp_min(1e-30)
    codes = torch.round(flat / scale * top).clamp(-top, top)
    return (codes / top * scale).flatten()[:w.numel()].view_as(w)


def quantize(model, k, block):
    from transformers.pytorch_utils import Conv1D
    for name, layer in model.named_modules():
        if name.endswith(("lm_head", "embed_out")) or not isinstance(layer, (torch.nn.Linear, Conv1D)):
            continue
        w = layer.weight.data
        is_transposed = isinstance(layer, Conv1D)
        w = quantize_int((w.t() if is_transposed else w).half(), k, block).half().to(w.dtype)
        layer.weight.data = w.t().contiguous() if is_transposed else w


def score(model, requests, batch, device):
    """Log-likelihood and greediness of each request's last tokens, longest first."""
    out = [None] * len(requests)
    order = sorted(range(len(requests)), key=lambda i: -len(requests[i][0]))
    for at in range(0, len(order), batch):
        chunk = order[at:at + batch]
        width = len(requests[chunk[0]][0]) - 1
        ids = torch.tensor([requests[i][0][:-1] + [0] * (width - len(requests[i][0]) + 1) for i in chunk], device=device)
        logprobs = torch.log_softmax(model(ids).logits.float(), -1)
        for row, i in enumerate(chunk):
            ids, n = requests[i]
            part = logprobs[row, len(ids) - 1 - n:len(ids) - 1]
            target = torch.tensor(ids[-n:], device=device)
            ll = part.gather(1, target[:, None]).sum()
            out[i] = (float(ll), bool((part.argmax(-1) == target).all()))
    return out


def accuracy(task, items, answers):
    right, at = 0, 0
    for gold, choices in items:
        mine = answers[at:at + len(choices)]
        at += len(choices)
        right += mine[0][1] if task == "lambada" else max(range(len(mine)), key=lambda c: mine[c][0]) == gold
    return right / len(items)


def windows(ids, prefix, length):
    """Rolling windows: (input ids with the predicted tail, number of predicted tokens)."""
    ids, done = [prefix] + ids, 0
    n = len(ids) - 1
    while done < n:
        w = min(length, n - done)
        end = done + w
        start = 0 if done == 0 else end - length
        yield ids[max(start, 0):end + 1], w
        done = end


def perplexity(model, tok, path, window, max_tokens, batch, device):
    requests, n_tokens = [], 0
    for d in read_lines(path, None):
        ids = tok(d["text"], add_special_tokens=False)["input_ids"]
        if n_tokens + len(ids) > max_tokens:
            break
        n_tokens += len(ids)
        requests += list(windows(ids, tok.eos_token_id or 0, window))
    lls = score(model, requests, batch, device)
    return float(torch.tensor(-sum(ll for ll, _ in lls) / n_tokens).exp())


@torch.no_grad()
def main():
    p = argparse.ArgumentParser()
    p.add_argument("--model", required=True)
    p.add_argument("--data", type=pathlib.Path, required=True)
    p.add_argument("--k", type=int, default=4)
    p.add_argument("--block", type=int, default=64)
    p.add_argument("--limit", type=int, default=120)
    p.add_argument("--window", type=int, default=512)
    p.add_argument("--max-tokens", type=int, default=16384)
    p.add_argument("--batch", type=int, default=16)
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--device", default="cpu")
    p.add_argument("--dtype", default="float32")
    o = p.parse_args()
    torch.set_num_threads(o.threads)
    seconds, metrics = {}, {}
    clock = time.perf_counter()

    def lap(name):
        nonlocal clock
        now = time.perf_counter()
        seconds[name], clock = now - clock, now

    tok = AutoTokenizer.from_pretrained(o.model)
    model = AutoModelForCausalLM.from_pretrained(o.model, dtype=getattr(torch, o.dtype)).to(o.device).eval()
    lap("load")
    quantize(model, o.k, o.block)
    lap("quantize")
    metrics["perplexity"] = perplexity(model, tok, o.data / "corpus.jsonl", o.window, o.max_tokens, o.batch, o.device)
    lap("perplexity")
    for task, read in TASKS.items():
        items = list(read(o.data / "tasks", o.limit))
        requests = [join(tok, *choice) for _, choices in items for choice in choices]
        metrics[task] = accuracy(task, items, score(model, requests, o.batch, o.device))
        lap(task)
    print(json.dumps({"seconds": seconds, "total": sum(seconds.values()), "batch": o.batch, "metrics": metrics}))


main()
