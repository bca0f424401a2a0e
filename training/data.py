"""Batches for the trainer, made ahead by worker processes: the batch of a step depends on the step alone."""

import multiprocessing as mp

import numpy as np

PAD = 2


class Encoder:
    """Text to ids and loss weights."""

    def __init__(self, path):
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(path))
        self.eos, self.assistant = self.id("<｜end▁of▁sentence｜>"), self.id("<｜Assistant｜>")

    def id(self, text):
        return self.tokenizer.token_to_id(text)

    def rows(self, texts, length, other):
        """ids and weights `[len(texts), length]`; tokens outside assistant turns weigh `other`."""
        ids = np.full((len(texts), length), PAD, np.int64)
        for row, e in zip(ids, self.tokenizer.encode_batch(list(texts), add_special_tokens=False)):
            n = min(len(e.ids), length)
            row[:n] = e.ids[:n]
        starts, ends = np.cumsum(ids == self.assistant, 1), np.cumsum(ids == self.eos, 1)
        before = np.pad(starts - ends, ((0, 0), (1, 0)))[:, :-1]
        inside = before > 0
        weights = np.where(inside, 1.0, other).astype(np.float32)
        weights[ids == PAD] = 0
        # the tag right behind the role token is the prompt's, not the model's
        given = np.pad(ids == self.assistant, ((0, 0), (1, 0)))[:, :-1]
        weights[given] = 0
        return ids, weights


def kind(step, steps):
    """(length, retrieval) of a step: mostly conversations, longer and longer documents between them."""
    done, turn = step / steps, step // 8
    if step % 8 == 7:
        if done < 0.2:
            return (512, 1024)[turn % 2], True
        if done < 0.5:
            return (1024, 4096)[turn % 2], True
        return (1024, 4096, 16384, 4096)[turn % 4], True
    if step % 8 == 3 and done > 0.1:
        return 4096, False
    return (1024, 1024, 2048, 1024)[step % 4], False


def batch(encoder, seed, step, length, retrieval, tokens):
    """One batch of `tokens` tokens in rows of `length`."""
    from dialogues import make, make_retrieval

    f = make_retrieval if retrieval else make
    n = tokens // length
    texts = [f((seed * 1_000_003 + step) * 1024 + row, length) for row in range(n)]
    return encoder.rows(texts, length, 0.02 if retrieval else 0.1)


def work(path, seed, steps, tokens, worker, workers, queue):
    encoder = Encoder(path)
    for step in range(worker, steps, workers):
        length, retrieval = kind(step, steps)
        ids, weights = batch(encoder, seed, step, length, retrieval, tokens)
        queue.put((step, ids.astype(np.uint16), weights.astype(np.float16)))


def stream(path, seed, steps, tokens, workers):
    """Yields (step, ids, weights) in order."""
    context = mp.get_context("spawn")
    queues = [context.Queue(maxsize=4) for _ in range(workers)]
    processes = [
        context.Process(target=work, args=(path, seed, steps, tokens, w, workers, q), daemon=True)
        for w, q in enumerate(queues)
    ]
    for p in processes:
        p.start()
    for step in range(steps):
        got, ids, weights = queues[step % workers].get()
        assert got == step
        yield step, ids.astype(np.int64), weights.astype(np.float32)
    for p in processes:
        p.join()
