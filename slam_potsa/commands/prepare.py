"""`slam-potsa prepare`: make or check manifests."""

from __future__ import annotations

from pathlib import Path

from slam_potsa.commands import prepare_convert, prepare_covost2, prepare_fleurs


def add(commands) -> None:
    prepare = commands.add_parser("prepare", help="make or check manifests")
    kinds = prepare.add_subparsers(required=True, metavar="KIND")
    check = kinds.add_parser("check", help="check a manifest and its recordings")
    check.add_argument("manifest", type=Path)
    check.add_argument("--no-audio", action="store_true", help="do not open the recordings")
    check.set_defaults(command=_prepare_check)
    asterisk = kinds.add_parser("asterisk", help="five languages of real telephone prompts")
    asterisk.add_argument("output", type=Path)
    asterisk.add_argument(
        "--from", dest="from_dir", type=Path, help="folder of downloaded packages"
    )
    asterisk.set_defaults(command=_prepare_asterisk)
    for kind in (prepare_fleurs, prepare_covost2, prepare_convert):
        kind.add_to(kinds)


def _prepare_check(args) -> None:
    from slam_potsa.data.manifest import check_manifest

    print(check_manifest(args.manifest, audio=not args.no_audio).table())


def _prepare_asterisk(args) -> None:
    from slam_potsa.registry import DATA_SOURCES, resolve

    build = resolve(DATA_SOURCES, "asterisk", "data source")
    print(build(args.output, from_dir=args.from_dir).summary)
