"""``unitmass demo``: logits under maps, reaction networks, ducks in sectors, a survey of all maps; tables, pictures."""

from __future__ import annotations

from pathlib import Path

__all__ = ["demo"]

_CHECKOUT = Path(__file__).resolve().parents[2]


def demo(out: str = "demo", data: str | None = None) -> None:
    """Draw maps, gillespie, sectors and survey.png in the folder `out`; `data` is that with the digits."""
    try:
        import matplotlib  # noqa: F401
        import rich  # noqa: F401
    except ImportError as error:
        raise ImportError(f'the demo needs {error.name}: pip install "unitmass[cli,plot]"') from None
    from unitmass._demo_gillespie import gillespie_demo
    from unitmass._demo_maps import maps_demo
    from unitmass._demo_sectors import sectors_demo
    from unitmass._demo_survey import survey_demo

    # Data and models belong to the examples, not to the installed package.
    given = [Path(data)] if data else [Path("examples/data"), _CHECKOUT / "examples/data"]
    hint = "" if data else "; run the demo in a checkout of unitmass, or name the folder with --data"
    source = _folder("digits_logits.npy", given, hint)
    models = _folder("vilar.txt", [source.parent / "models", _CHECKOUT / "examples/models"], "")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    maps, scored = maps_demo(source, folder)
    print()
    gillespie = gillespie_demo(models, folder)
    print()
    sectors = sectors_demo(folder)
    print()
    survey = survey_demo(folder)
    print(f"Pictures: {maps}, {gillespie}, {sectors}, {survey}")
    print(f"Scored files: {', '.join(map(str, scored))}")


def _folder(file: str, places: list[Path], hint: str) -> Path:
    for place in places:
        if (place / file).is_file():
            return place
    raise ValueError(f"{file} is not in {places[0]}{hint}")
