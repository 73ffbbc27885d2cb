"""`slam-potsa where`: paths for SLAM-LLM's configuration."""

from __future__ import annotations


def add(commands) -> None:
    where = commands.add_parser("where", help="paths for SLAM-LLM's configuration")
    where.add_argument("what", choices=("model", "dataset", "conf"))
    where.set_defaults(command=_where)


def _where(args) -> None:
    from slam_potsa.config.compose import conf_dir

    if args.what == "conf":
        print(conf_dir())
        return
    from slam_potsa.engine.slam_llm import plugin_file

    print(plugin_file(args.what))
