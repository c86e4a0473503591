"""What the site makes from the code while it is built, and the README's table of models.

  mkdocs build --strict     runs the functions that begin with on_
  python docs/pages.py       fills the table of models in README.md

A page of models is docs/models/FILE.md for the models of pspike_jax/models/FILE.py. Its tables of
fields and presets come from `describe_model`; a family without a page gets one of these alone.
Links that leave docs/ become names of files, and pictures beside the records become part of the
site. `<!-- include: PATH -->` stands for a file of the repository.
"""

import pathlib
import posixpath
import re
import sys
from collections.abc import Iterator
from typing import Any

import jax

import pspike_jax

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))  # mkdocs loads this file alone

from block_diagram import diagram  # noqa: E402
from decisions import with_figures  # noqa: E402
from pspike_jax.models.sequence import SUPPORTS  # noqa: E402
from pspike_jax.models.zoo import MODELS  # noqa: E402

DOCS = pathlib.Path(__file__).resolve().parent
ROOT = DOCS.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)\s]*)?\)")
INCLUDE = re.compile(r"^<!-- include: (\S+) -->$", re.M)


def families() -> dict[str, list[str]]:
    """Return the models of the zoo by the file that defines them."""
    found: dict[str, list[str]] = {}
    for name, family in sorted(MODELS.items()):
        found.setdefault(family.model.__module__.rsplit(".", 1)[1], []).append(name)
    return dict(sorted(found.items()))


def title(page: str) -> str:
    """Return what a page of models is called: its heading, or the name of its file."""
    path = DOCS / "models" / f"{page}.md"
    heading = re.search(r"^# (.+)$", path.read_text(), re.M) if path.exists() else None
    return heading[1] if heading else page


def models_table(links: str | None) -> str:
    """Return a table of all models; `links` is where their pages are, None for no links."""
    lines = ["| family | models |", "| --- | --- |"]
    for page, names in families().items():
        words = title(page)
        if links is not None:
            words = f"[{words}]({links}{page}.md)"
        lines.append(f"| {words} | {', '.join(f'`{name}`' for name in names)} |")
    return "\n".join(lines) + "\n"


def supports_table() -> str:
    """Return a table of what each model can do beside whole sequences."""
    able = SUPPORTS
    lines = ["| model | " + " | ".join(able) + " |", "| --- |" + " --- |" * len(able)]
    for name in pspike_jax.list_models():
        supports = pspike_jax.describe_model(name).supports
        marks = " | ".join("yes" if one in supports else "" for one in able)
        lines.append(f"| `{name}` | {marks} |")
    return "\n".join(lines) + "\n"


def pretrained_table() -> str:
    """Return a table of the models that come with the package."""
    lines = ["| name | model | data | accuracy | parameters |", "| --- | --- | --- | --- | --- |"]
    for name in pspike_jax.list_pretrained():
        _, variables, card = pspike_jax.load_pretrained(name)
        found = card["figures"]["test_accuracy"]["sampled"]
        size = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
        accuracy = f"{100 * found['mean']:.1f} ± {100 * found['sem_examples']:.1f} %"
        model, data = card["model"]["name"], card["task"]["name"]
        lines.append(f"| `{name}` | `{model}` | {data} | {accuracy} | {size:,} |")
    return "\n".join(lines) + "\n"


def _cell(value: Any) -> str:
    return str(value).replace("|", "\\|").replace("\n", " ")


def field_tables(names: list[str]) -> Iterator[str]:
    """Yield the sections on fields and presets of models that share a page."""
    described: dict[type, str] = {}
    for name in names:
        found = pspike_jax.describe_model(name)
        kind = type(next(iter(MODELS[name].presets.values())))
        if kind in described:
            yield f"\n## Fields of `{name}`\n\nThose of `{described[kind]}`.\n"
        else:
            described[kind] = name
            yield f"\n## Fields of `{name}`\n\n| field | default | type | meaning |\n"
            yield "| --- | --- | --- | --- |\n"
            for field in found.fields:
                choices = f" ({', '.join(field.choices)})" if field.choices else ""
                cells = (f"`{field.name}`", f"`{field.default!r}`", field.kind,
                         field.meaning + choices)
                yield "| " + " | ".join(map(_cell, cells)) + " |\n"
        yield f"\nSupports: {', '.join(found.supports) or 'whole sequences alone'}.\n\n"
        for preset, fields in found.presets.items():
            words = ", ".join(f"`{field}={value!r}`" for field, value in fields.items())
            yield f"- preset `{preset}`: {words or 'the defaults above'}\n"


def _block_pictures(names: list[str]) -> Iterator[str]:
    """Yield the section on what blocks call, of each class of models of a page."""
    seen = set()
    for name in names:
        if MODELS[name].model in seen:
            continue
        seen.add(MODELS[name].model)
        if picture := diagram(name):
            yield f"\n## A block of `{name}`\n\n{picture}\n\n"
            yield "What a block calls, in order, of the preset `tiny`; a model without blocks "
            yield "calls it itself. Sums, gates and maps without parameters stand between.\n"


def on_config(config):
    """Name every page of models in the navigation, and pages that no line of it names."""
    named = re.findall(r"[\w/]+\.md", str(config.nav))
    for path in sorted(DOCS.glob("*.md")):
        if path.name not in named:
            config.nav.append(path.name)
    for entry in config.nav:
        if isinstance(entry, dict) and "Models" in entry:
            written = {path.stem for path in (DOCS / "models").glob("*.md")} - {"index"}
            pages = sorted(written | set(families()))
            entry["Models"] = ["models/index.md", *(f"models/{page}.md" for page in pages)]
    return config


def on_files(files, config):
    """Add the pages that are not written, and pictures from outside docs/."""
    from mkdocs.structure.files import File

    for page in families():
        if files.get_file_from_path(f"models/{page}.md") is None:
            files.append(File.generated(config, f"models/{page}.md", content=f"# {page}\n"))
    for path in DOCS.rglob("*.md"):
        for picture, _, target, _ in LINK.findall(_included(path.read_text())):
            outside = (path.parent / target).resolve()
            if picture and outside.is_file() and not outside.is_relative_to(DOCS):
                place = f"pictures/{outside.relative_to(ROOT).as_posix()}"
                if files.get_file_from_path(place) is None:
                    content = outside.read_bytes()
                    files.append(File.generated(config, place, content=content))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fill in what is made from the code, and keep links inside the site."""
    source = page.file.src_uri
    text = _included(markdown)
    if source == "models/index.md":
        text = with_figures(text)
    text = text.replace("<!-- models -->", models_table("models/" if "/" not in source else ""))
    text = text.replace("<!-- supports -->", supports_table())
    if "<!-- pretrained -->" in text:
        text = text.replace("<!-- pretrained -->", pretrained_table())
    folder, _, name = source.rpartition("/")
    names = families().get(name.removesuffix(".md")) if folder == "models" else None
    if names:
        text += "\n" + "".join([*_block_pictures(names), *field_tables(names)])
    return LINK.sub(lambda link: _inside(link, source), text)


def _included(text: str) -> str:
    """Put files of the repository where a page names them; their links go by the repository."""

    def read(match):
        content = (ROOT / match[1]).read_text()
        place = posixpath.dirname(match[1])
        return LINK.sub(
            lambda link: f"{link[1]}[{link[2]}]({posixpath.normpath(f'../{place}/{link[3]}')})",
            content,
        )

    return INCLUDE.sub(read, text)


def _inside(link: re.Match, source: str) -> str:
    """Return a link as the site can have it."""
    picture, words, target, _ = link.groups()
    place = (DOCS / source).parent / target
    outside = place.resolve()
    if outside.is_relative_to(DOCS):
        return link[0]
    inside_root = outside.relative_to(ROOT).as_posix()
    if picture:
        up = "../" * source.count("/")
        return f"![{words}]({up}pictures/{inside_root})"
    bare = words.strip("`")
    return f"`{inside_root}`" if bare == inside_root else f"{words} (`{inside_root}`)"


def fill_readme() -> None:
    """Write the README's table of models."""
    path = ROOT / "README.md"
    pattern = re.compile(r"(<!-- models -->\n).*?(<!-- end of models -->)", re.S)
    table = models_table(None)
    path.write_text(pattern.sub(lambda match: match[1] + table + match[2], path.read_text()))


if __name__ == "__main__":
    fill_readme()
