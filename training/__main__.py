"""``python -m training``: make dialogues, train the pocket model, score and export it."""

from __future__ import annotations

import argparse
from pathlib import Path


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m training", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    make = commands.add_parser("make", help="print some generated dialogues")
    make.add_argument("--seed", type=int, default=1)
    make.add_argument("--count", type=int, default=5)
    make.add_argument("--held-out", action="store_true", help="of the held-out side")

    train = commands.add_parser("train", help="train; leaves a state and a checkpoint in FOLDER")
    train.add_argument("folder", type=Path)
    train.add_argument("--minutes", type=float, default=90.0)
    train.add_argument("--finish-minutes", type=float, default=25.0)
    train.add_argument("--copying-steps", type=int, default=250)
    train.add_argument("--matrix-rate", type=float, default=4e-3)
    train.add_argument("--other-rate", type=float, default=3e-3)
    train.add_argument("--seed", type=int, default=1)
    train.add_argument("--threads", type=int, default=2)
    train.add_argument("--resume", action="store_true", help="go on from FOLDER's state")

    grow = commands.add_parser("grow", help="put one layer more into the model of a state file")
    grow.add_argument("state_file", type=Path)
    grow.add_argument("--at", type=int, default=2, help="before which layer")

    score = commands.add_parser("score", help="print the score table of a checkpoint FOLDER")
    score.add_argument("folder", type=Path)
    score.add_argument("--formats", nargs="+", default=["bf16", "q8_0"])
    score.add_argument("--count", type=int, default=200, help="prompts per skill")
    score.add_argument("--seed", type=int, default=4242)
    score.add_argument("--misses", type=Path, help="write what went wrong to this file")
    score.add_argument("--only", default="", help="skills with this in their names")

    commands.add_parser("vocabulary", help="learn the vocabulary anew (then train from scratch)")

    arguments = vars(parser.parse_args())
    command = arguments.pop("command")
    if command == "make":
        _make(**arguments)
    elif command == "train":
        from training.train import Settings
        from training.train import train as run

        run(Settings(**arguments))
    elif command == "grow":
        from training.grow import grow as run_grow

        run_grow(**arguments)
    elif command == "score":
        from training.score import score as run_score

        run_score(**arguments)
    elif command == "vocabulary":
        from training.tokens import make_tokens, save_tokens

        save_tokens(make_tokens())


def _make(seed: int, count: int, held_out: bool) -> None:
    from training.dialogue import pieces
    from training.packing import draw_group
    from training.skills import MIX
    from training.words import Draw

    draw = Draw(seed, held_out=held_out)
    for _ in range(count):
        name = draw.rng.choices(list(MIX), [w for _, w in MIX.values()])[0]
        for dialogue in draw_group(draw, name):
            print(f"--- {dialogue.skill}")
            print("".join(text for text, _ in pieces(dialogue)))


if __name__ == "__main__":
    main()
