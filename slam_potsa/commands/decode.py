"""`slam-potsa decode | translate | pseudo`."""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from slam_potsa.config.templates import TASKS
from slam_potsa.errors import InputError, collecting, placed, refuse

# Flags of `decode` that stand for an option of the section `decode`; without one, the run's.
_OPTIONS = {
    "--beams": ("num_beams", int, "beam width; 1: greedy"),
    "--n-best": ("num_return_sequences", int, "answers an utterance, with scores; <= beams"),
    "--max-new-tokens": ("max_new_tokens", int, "tokens an answer at most"),
    "--length-penalty": ("length_penalty", float, "above 1 favours longer answers"),
    "--no-repeat-ngram-size": ("no_repeat_ngram_size", int, "forbid repeated n-grams; 0: off"),
}


def add(commands) -> None:
    decode = _searching(commands, "decode", "translate a manifest with a trained run")
    decode.add_argument("--output", help="prefix of the files; default: RUN/<manifest's name>")
    peer = "first of all: another system in place of RUN, such as whisper; needs --model"
    decode.add_argument("--system", action=_System, help=peer)
    decode.add_argument("--model", help="folder or hub name of its weights")
    decode.add_argument(
        "--shuffle-audio",
        action="store_true",
        help="blind control: every sentence answered to another one's recording",
    )
    decode.set_defaults(command=_decode)

    pseudo = _searching(commands, "pseudo", "give speech without text the targets of a trained run")
    pseudo.add_argument("output", type=Path, metavar="OUT", help="manifest to write")
    whose = "whose recording is translated: another one's of the sentence, or its own"
    pseudo.add_argument("--of", choices=("partner", "own"), default="partner", help=whose)
    codes = "that get targets; default: all of which no row has one"
    pseudo.add_argument("--languages", nargs="+", default=(), metavar="CODE", help=codes)
    pseudo.add_argument("--partner-language", metavar="CODE", help="default: any other")
    unsaid = "of recordings that do not say theirs"
    pseudo.add_argument("--target-language", metavar="CODE", help=unsaid)
    pseudo.set_defaults(command=_pseudo)

    translate = commands.add_parser("translate", help="translate recordings with a trained run")
    translate.add_argument("recordings", nargs="+", type=Path, help="of any length")
    translate.add_argument("--language", required=True, help="spoken language, such as fr")
    translate.add_argument(
        "--target-language", help="default: that of the run's training manifest, if it is one"
    )
    translate.add_argument("--run", type=Path, default=Path("outputs/demo/potsa"))
    translate.add_argument("--bias", type=Path, help="language biases to use instead of the run's")
    forms = ("text", "json", "srt", "vtt")
    translate.add_argument("--format", choices=forms, default="text", help="others with times")
    translate.set_defaults(command=_translate)


class _System(argparse.Action):
    """Where another system decodes, no RUN is given."""

    def __call__(self, parser, args, value, _flag=None):
        args.system = value
        (run,) = (action for action in parser._actions if action.dest == "run")
        run.nargs = "?"


def _searching(commands, name: str, help: str):
    """The parser of a command that decodes a manifest, with the options of the search."""
    parser = commands.add_parser(name, help=help)
    parser.add_argument("run", type=Path, help="output_dir of the training")
    parser.add_argument("manifest", type=Path)
    for flag, (option, kind, meaning) in _OPTIONS.items():
        parser.add_argument(flag, dest=option, type=kind, help=f"{meaning}; default: the run's")
    parser.add_argument("--batch-size", type=int, help="utterances at once; default: the run's")
    parser.add_argument("--task", choices=TASKS, help="default: the run's")
    parser.add_argument("--bias", type=Path, help="language biases to use instead of the run's")
    parser.add_argument("--processes", type=int, default=1, help="each decodes a share, on its GPU")
    return parser


def _searched(args):
    """The run's configuration, with what the line says of the search."""
    config = _run(args)
    for name, _, _ in _OPTIONS.values():
        if getattr(args, name) is not None:
            setattr(config.decode, name, getattr(args, name))
    config.train_config.val_batch_size = args.batch_size or config.train_config.val_batch_size
    config.dataset_config.test_task = args.task or config.dataset_config.test_task
    return config


def _pseudo(args) -> None:
    from slam_potsa.engine.pseudo import write_pseudo_targets

    names = ("of", "languages", "partner_language", "target_language", "processes")
    options = {name: getattr(args, name) for name in names}
    print(write_pseudo_targets(args.output, _searched(args), args.manifest, **options))


def _decode_peer(args) -> None:
    from slam_potsa.engine.decode import predictions_file
    from slam_potsa.engine.peers import decode_peer

    given = {name: getattr(args, name) for name, _, _ in _OPTIONS.values()}
    search = {name: value for name, value in given.items() if value is not None}
    unread = [f"--{name.replace('_', '-')}" for name in ("batch_size", "bias", "shuffle_audio")
              if getattr(args, name)]  # fmt: skip
    unread += ["--n-best"] * ("num_return_sequences" in search)
    refuse(f"{flag}: not with --system" for flag in unread)
    if not args.model:
        raise InputError("--system needs --model, the folder or hub name of its weights")
    prefix = args.output or f"outputs/{args.system}/{args.manifest.stem}"
    search = {"max_new_tokens": 200} | search
    decode_peer(args.system, args.model, args.manifest, prefix, args.task or "s2tt", **search)
    print(predictions_file(prefix))


def _decode(args) -> None:
    if args.system:
        return _decode_peer(args)
    from slam_potsa.engine.decode import decode_to, predictions_file

    config = _searched(args)
    name = args.manifest.stem + ("_blind" if args.shuffle_audio else "")
    prefix = args.output or str((args.run if args.run.is_dir() else Path()) / name)
    how = {"shuffle_audio": args.shuffle_audio, "processes": args.processes}
    decode_to(prefix, config, args.manifest, **how)
    print(predictions_file(prefix))


def _translate(args) -> None:
    from slam_potsa.data.pieces import translated, written
    from slam_potsa.engine.decode import Translator
    from slam_potsa.engine.launch import quieten

    quieten()
    with TemporaryDirectory() as folder:
        spoken = _pieces(args, folder)
        config = _run(args)
        target = args.target_language or target_language(args.run, config)
        translator = Translator(config)
        found = translated(spoken, lambda files: translator.translate(files, args.language, target))
    for path, pieces in zip(args.recordings, found, strict=True):
        text = written(pieces, args.format)
        print(f"{path}\t{text}" if len(found) > 1 else text)


def target_language(run, config) -> str:
    """The one language that the run was trained to translate into; "" for asr."""
    from slam_potsa.data.tasks import task_to_decode
    from slam_potsa.engine.share import languages

    data = config.dataset_config
    if task_to_decode(data.tasks, data.test_task) == "asr":
        return ""
    with placed("--target-language is not given: the run's training manifest"):
        targets = languages(run)["written"]
    if len(targets) != 1:
        raise InputError(
            "--target-language is not given and the run was trained to translate into "
            f"{', '.join(targets) or 'none'}: give it, such as zh"
        )
    return targets[0]


def _run(args):
    """The run's configuration, with the biases of `--bias`."""
    from slam_potsa.engine.decode import load_run

    config = load_run(args.run)
    if args.bias is not None:
        if not config.language_bias.enabled:
            raise InputError(
                f"--bias {args.bias}: {args.run} was trained without language biases "
                "(language_bias.enabled=false) and reads none"
            )
        config.language_bias.path = str(args.bias)
    return config


def _pieces(args, folder: str) -> list:
    """The recordings, cut. Raises InputError with all that is wrong, before a model is loaded."""
    from slam_potsa.data.languages import language_id
    from slam_potsa.data.pieces import cut

    problems, spoken = [], []
    if len(args.recordings) > 1 and args.format != "text":
        problems.append(f"--format {args.format}: expected one recording, got several")
    for code in filter(None, (args.language, args.target_language)):
        with collecting(problems):
            language_id(code)
    for path in args.recordings:
        with collecting(problems):
            spoken.append(cut(path, Path(folder, str(len(spoken))), progress=True))
    refuse(problems)
    return spoken
