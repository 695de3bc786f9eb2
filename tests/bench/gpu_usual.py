"""What the engine is measured against on a GPU: transformers in fp16 with sdpa, as one would write it.

  gpu_usual.py make NAME DIR IDS [TOKENIZER]  checkpoint of NAME's shapes with random weights, and token ids
  gpu_usual.py perplexity DIR IDS             8 windows of 2,048 tokens with their loss
  gpu_usual.py short DIR IDS                  items of 72 shared tokens and four endings of 24, in batches of 64 x 96
  gpu_usual.py config DIR SHARED              load, quantize, perplexity and four real task files, length-sorted batches

Every command but `make` prints one JSON line. Needs torch, transformers and a GPU.
"""
import json
import math
import shutil
import statistics
import sys
import time

import numpy
import torch
import torch.nn.functional as F

SHAPES = {  # layers, d, heads, vocabulary
    "70m": (6, 512, 8, 50304),
    "410m": (24, 1024, 16, 50304),
    "1b": (16, 2048, 8, 50304),
    "1.4b": (24, 2048, 16, 50304),
    "2.8b": (32, 2560, 32, 50304),
    "6.9b": (32, 4096, 32, 50432),
}
WINDOWS, WINDOW = 8, 2048
ITEMS, SHARED, CHOICES, ENDING = 1024, 72, 4, 24


def make(name, folder, ids, tokenizer=None):
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    layers, d, heads, vocab = SHAPES[name]
    config = GPTNeoXConfig(hidden_size=d, num_hidden_layers=layers, num_attention_heads=heads,
                           intermediate_size=4 * d, vocab_size=vocab, rotary_pct=0.25,
                           max_position_embeddings=WINDOW, use_parallel_residual=True)
    torch.manual_seed(1)
    torch.set_default_dtype(torch.float16)
    with torch.device("cuda"):
        model = GPTNeoXForCausalLM(config)
    model.save_pretrained(folder, max_shard_size="4GB")
    with open(folder + "/config.json", "w", encoding="utf-8") as f:  # as published models have it
        json.dump({"architectures": ["GPTNeoXForCausalLM"], "model_type": "gpt_neox", "vocab_size": vocab,
                   "hidden_size": d, "num_hidden_layers": layers, "num_attention_heads": heads,
                   "intermediate_size": 4 * d, "hidden_act": "gelu", "rotary_pct": 0.25, "rotary_emb_base": 10000,
                   "max_position_embeddings": WINDOW, "layer_norm_eps": 1e-5, "use_parallel_residual": True,
                   "tie_word_embeddings": False, "torch_dtype": "float16"}, f)
    if tokenizer:
        shutil.copy(tokenizer, folder + "/tokenizer.json")
    numpy.random.default_rng(2).integers(0, 50000, WINDOWS * WINDOW, dtype=numpy.int32).tofile(ids)


def load(folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float16,
                                                attn_implementation="sdpa").to("cuda").eval()


def timed(f, repeats, group_seconds=0.0):
    """Seconds of one f() among several behind each other, the median of three such groups, and its value. A group has
    `repeats` of them and lasts `group_seconds` at least: shorter ones end before the GPU's power settles."""
    for _ in range(2):
        value = f()
    if group_seconds > 0:
        torch.cuda.synchronize()
        start = time.perf_counter()
        value = f()
        torch.cuda.synchronize()
        repeats = max(repeats, int(group_seconds / (time.perf_counter() - start)) + 1)
    seconds = []
    for _ in range(3):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(repeats):
            value = f()
        torch.cuda.synchronize()
        seconds.append((time.perf_counter() - start) / repeats)
    return statistics.median(seconds), value


def perplexity(folder, ids):
    model = load(folder)
    ids = torch.from_numpy(numpy.fromfile(ids, numpy.int32).reshape(WINDOWS, WINDOW)).long().cuda()
    with torch.inference_mode():
        seconds, loss = timed(lambda: model(ids, labels=ids, use_cache=False).loss, 6, 0.3)
    print(json.dumps({"side": "transformers", "what": "perplexity", "nll": loss.item(),
                      "tokens_per_second": round(ids.numel() / seconds), "ms": seconds * 1e3}))


def short(folder, ids):
    model = load(folder)
    ids = numpy.fromfile(ids, numpy.int32)
    per_item = SHARED + CHOICES * ENDING
    rows = []
    for i in range(ITEMS):
        at = i * per_item % (len(ids) - per_item)
        item = ids[at:at + per_item]
        for c in range(CHOICES):
            rows.append(numpy.concatenate([item[:SHARED], item[SHARED + c * ENDING:SHARED + (c + 1) * ENDING]]))
    rows = torch.from_numpy(numpy.stack(rows)).long().cuda()

    def run():
        total = 0.0
        for batch in rows.split(64):
            logits = F.log_softmax(model(batch, use_cache=False).logits, dim=-1)
            part = logits[:, SHARED - 1:-1].gather(2, batch[:, SHARED:, None])
            total += part.sum().item()
        return -total / (len(rows) * ENDING)

    with torch.inference_mode():
        seconds, nll = timed(run, 1)
    print(json.dumps({"side": "transformers", "what": "short", "nll": nll,
                      "items_per_second": round(ITEMS / seconds)}))


# ---- a whole configuration, as lm-evaluation-harness goes about it ----

def lines(path):
    with open(path, encoding="utf-8") as f:
        return [json.loads(line) for line in f]


def requests(shared):
    """(context, continuation) of the four tasks, prompts as the harness builds them."""
    out = []
    for r in lines(shared + "/data/tasks/lambada_test.jsonl"):
        context, word = r["text"].rsplit(" ", 1)
        out.append((context, " " + word))
    for r in lines(shared + "/data/tasks/winogrande_dev.jsonl"):
        before, after = r["sentence"].split("_", 1)
        for option in (r["option1"], r["option2"]):
            out.append((before + option, " " + after.strip()))
    for r in lines(shared + "/data/tasks/piqa_valid.jsonl"):
        for choice in (r["sol1"], r["sol2"]):
            out.append(("Question: " + r["goal"] + "\nAnswer:", " " + choice))
    for r in lines(shared + "/data/tasks/hellaswag_val.jsonl"):
        for ending in r["endings"]:
            out.append((r["activity_label"] + ": " + r["ctx"], " " + ending))
    return out


@torch.inference_mode()
def quantize(model, k=4, block=64):
    for name, p in model.named_parameters():
        if p.dim() == 2 and "embed" not in name:
            w = p.view(-1, block).float()
            m = w.abs().amax(1, keepdim=True).clamp_min(1e-12)
            n = 2 ** (k - 1) - 1
            p.copy_(((w / m * n).round() / n * m).half().view(p.shape))


@torch.inference_mode()
def score(model, encoded, batch):
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded[i][0]))
    out = [0.0] * len(encoded)
    for at in range(0, len(order), batch):
        some = order[at:at + batch]
        width = max(len(encoded[i][0]) - 1 for i in some)
        ids = torch.zeros(len(some), width, dtype=torch.long)
        for row, i in enumerate(some):
            tokens = encoded[i][0][:-1]
            ids[row, :len(tokens)] = torch.tensor(tokens)
        logits = F.log_softmax(model(ids.cuda(), use_cache=False).logits, dim=-1)
        for row, i in enumerate(some):
            tokens, n = encoded[i]
            part = logits[row, len(tokens) - 1 - n:len(tokens) - 1]
            want = torch.tensor(tokens[-n:]).cuda()
            greedy = bool((part.argmax(-1) == want).all())
            out[i] = (float(part.gather(1, want[:, None]).sum()), greedy)
    return out


def config(folder, shared):
    from tokenizers import Tokenizer

    parts = {}
    start = time.perf_counter()
    model = load(folder)
    torch.cuda.synchronize()
    parts["load"] = time.perf_counter() - start
    start = time.perf_counter()
    quantize(model)
    torch.cuda.synchronize()
    parts["quantize"] = time.perf_counter() - start
    start = time.perf_counter()
    tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
    asked = requests(shared)
    whole = tokenizer.encode_batch([c + t for c, t in asked], add_special_tokens=False)
    fronts = tokenizer.encode_batch([c for c, _ in asked], add_special_tokens=False)
    encoded = [(w.ids[-WINDOW:], max(1, len(w.ids) - len(f.ids))) for w, f in zip(whole, fronts)]
    with open(shared + "/data/heldout_420k.txt", encoding="utf-8") as f:
        stream = tokenizer.encode(f.read(), add_special_tokens=False).ids[:65536]
    parts["tokenize"] = time.perf_counter() - start
    start = time.perf_counter()
    windows = torch.tensor(stream[:len(stream) // WINDOW * WINDOW]).view(-1, WINDOW).cuda()
    with torch.inference_mode():
        losses = [model(w, labels=w, use_cache=False).loss.item() for w in windows.split(8)]
    parts["perplexity"] = time.perf_counter() - start
    tasks = {}
    for batch in (16, 64, 256):
        try:
            start = time.perf_counter()
            score(model, encoded, batch)
            tasks[batch] = time.perf_counter() - start
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
    parts["tasks"] = min(tasks.values())
    print(json.dumps({"side": "transformers", "what": "config", "seconds": sum(parts.values()),
                      "parts": parts, "by_batch": tasks, "requests": len(encoded),
                      "perplexity": math.exp(statistics.mean(losses))}))


if __name__ == "__main__":
    {"make": make, "perplexity": perplexity, "short": short, "config": config}[sys.argv[1]](*sys.argv[2:])
