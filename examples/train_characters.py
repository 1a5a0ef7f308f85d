"""A character model of Python's own help texts, trained from scratch, then writing by itself.

    python examples/train_characters.py             # under a minute
    python examples/train_characters.py --quick     # a few seconds, for a look

Embedding -> LSTM -> Linear, cross-entropy, Adam, gradients clipped. The text is cut into parallel
rows that are read from left to right in short chunks; the state goes from chunk to chunk, the
gradient does not (truncated backpropagation through time). The text comes with Python.
"""

import argparse
import math
import re
import time
from pydoc_data.topics import topics

import numpy as np

import fastlstm as fl
from fastlstm._progress import Progress

ROWS = 32
CHUNK = 64
EMBEDDING = 32
LEARNING_RATE = 4e-3
TEMPERATURE = 0.6


def read_text(length):
    """(integers, characters): the first `length` characters of the topics, rare ones left out."""
    text = "\n".join(topics[name] for name in sorted(topics))
    text = re.sub(" +", " ", text)  # indentation would be a quarter of all characters
    characters, counts = np.unique(list(text), return_counts=True)
    characters = characters[counts > 50]
    code = {character: k for k, character in enumerate(characters.tolist())}
    numbers = np.array([code[character] for character in text if character in code], dtype=np.int64)
    return numbers[:length], characters


def in_rows(numbers, rows):
    """Cut into `rows` parallel pieces: (T, rows), each column a run of the text."""
    steps = len(numbers) // rows
    return numbers[: steps * rows].reshape(rows, steps).T


def bits(nats):
    """Nats to bits."""
    return float(nats) / math.log(2)


def evaluate(model, numbers):
    """Bits per character on text the model was not trained on."""
    table = in_rows(numbers, 8)
    logits, _ = model(table[:-1])
    loss, _ = fl.losses.cross_entropy(logits, table[1:])
    return bits(loss)


def train(model, numbers, held_out, steps):
    """`steps` updates; prints bits per character about ten times."""
    table = in_rows(numbers, ROWS)
    optimizer = fl.optim.Adam(model, lr=LEARNING_RATE)
    state, at, losses = None, 0, []
    start = time.perf_counter()
    with Progress(steps, "training") as bar:
        for step in range(1, steps + 1):
            if at + CHUNK + 1 > len(table):
                state, at = None, 0  # the text is read; begin again
            logits, state, cache = model.forward(table[at : at + CHUNK], state, cache=True)
            loss, dlogits = fl.losses.cross_entropy(logits, table[at + 1 : at + CHUNK + 1])
            _, _, grads = model.backward(dlogits, cache)
            fl.clip_grad_norm(grads, 1.0)
            optimizer.lr = LEARNING_RATE * (0.05 + 0.95 * (1 - step / steps))
            optimizer.step(grads)
            losses.append(bits(loss))
            at += CHUNK
            bar.advance()
            if step % max(steps // 10, 1) == 0:
                bar.clear()
                unseen = evaluate(model, held_out)
                seconds = time.perf_counter() - start
                print(
                    f"step {step:5}  {np.mean(losses):.2f} bits per character, "
                    f"on unseen text {unseen:.2f}  ({seconds:.0f} s)",
                    flush=True,
                )
                losses.clear()


def write(model, characters, length, rng, start="The "):
    """Let the model write: each character drawn is the next step's input."""
    code = {character: k for k, character in enumerate(characters.tolist())}
    stream = model.stream(batch_size=1)
    for character in start:
        logits = stream.step(np.array([code[character]]))
    text = start
    for _ in range(length):
        scores = logits[0].astype(np.float64) / TEMPERATURE
        chances = np.exp(scores - scores.max())
        drawn = int(rng.choice(len(characters), p=chances / chances.sum()))
        text += str(characters[drawn])
        logits = stream.step(np.array([drawn]))
    return text


def main():
    """Train, then print a sample."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400, help="updates of the weights")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="a small model, 60 updates")
    arguments = parser.parse_args()
    steps, hidden = (60, 32) if arguments.quick else (arguments.steps, arguments.hidden)

    numbers, characters = read_text(400_000)
    cut = len(numbers) * 19 // 20
    rng = np.random.default_rng(arguments.seed)
    model = fl.Sequential(
        fl.Embedding(len(characters), EMBEDDING, rng=rng),
        fl.LSTM(EMBEDDING, hidden, rng=rng),
        fl.Linear(hidden, len(characters), rng=rng),
    )
    print(f"{cut:,} characters, {len(characters)} different; {model.num_parameters:,} parameters")
    print(f"before training {evaluate(model, numbers[cut:]):.2f} bits per character on unseen text")
    train(model, numbers[:cut], numbers[cut:], steps)
    print("\nthe model writes:\n" + write(model, characters, 100 if arguments.quick else 500, rng))


if __name__ == "__main__":
    main()
