"""Commands on mails: see what each kind looks like, and try the server."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cancellations.errors import BadInput
from deployments.commands.application import application
from deployments.commands.options import DEFAULT_HOME, HomeOption, Json
from deployments.console import Voice, print_json

if TYPE_CHECKING:
    from email.message import EmailMessage

group = typer.Typer(name="mail", invoke_without_command=True, pretty_exceptions_enable=False)

TRIED = "drift-detected"


@group.callback()
def mail(context: typer.Context, home: HomeOption = DEFAULT_HOME, as_json: Json = False) -> None:
    """List the kinds of mail, see what each looks like, try the server.

    Example: cancellations mail preview mails
    """
    if context.invoked_subcommand is None:
        from cancellations.bootstrap import sample_mails

        subjects = {name: str(each["Subject"]) for name, each in sample_mails(application(home).settings).items()}
        if as_json:
            print_json({"kinds": subjects})
        else:
            _list(subjects, Voice())
        return
    for name in context.params:
        given = context.get_parameter_source(name)
        if given is not None and given.name == "COMMANDLINE":
            raise BadInput(f"options belong behind the word: cancellations mail {context.invoked_subcommand} …")


def preview(
    folder: Annotated[Path, typer.Argument(help="Folder for the files; made when it is not there.")] = Path("mails"),
    home: HomeOption = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Write an invented mail of each kind to files: as it is sent (.eml), as a page (.html) and as text (.txt).

    Example: cancellations mail preview mails
    """
    from cancellations.bootstrap import sample_mails

    mails = sample_mails(application(home).settings)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [path for name, each in mails.items() for path in _write(folder / name, each)]
    except OSError as error:
        raise BadInput(
            f"mails cannot be written to {folder}: {error.strerror or error}. Name another folder"
        ) from error
    if as_json:
        print_json({"folder": str(folder), "files": sorted(path.name for path in written)})
        return
    voice = Voice()
    _list({name: str(each["Subject"]) for name, each in mails.items()}, voice)
    voice.say(f"{len(mails)} mails written to {folder}; open the .html ones in a browser")


def test(
    kind: Annotated[str, typer.Option(help="One of those that `mail preview` writes.")] = TRIED,
    home: HomeOption = DEFAULT_HOME,
    as_json: Json = False,
) -> None:
    """Send one invented mail to the owners, by the server of the settings.

    Example: cancellations mail test --kind promoted
    """
    from cancellations.bootstrap import send_sample

    settings = application(home).settings
    send_sample(settings, kind)
    told = {"kind": kind, "to": settings.mail.owners, "server": f"{settings.mail.host}:{settings.mail.port}"}
    if as_json:
        print_json(told)
    else:
        Voice().say(f"{kind} sent to {', '.join(settings.mail.owners)} by {told['server']}")


COMMANDS = (preview, test)


def _list(subjects: Mapping[str, str], voice: Voice) -> None:
    for name, subject in subjects.items():
        voice.say(f"{name:<22} {subject}")


def _write(path: Path, mail: EmailMessage) -> list[Path]:
    text, html = (mail.get_body((kind,)) for kind in ("plain", "html"))
    assert text is not None and html is not None, "every mail has both parts"
    page = html.get_content()
    for picture in mail.walk():
        if picture.get_content_maintype() == "image":
            data = base64.b64encode(picture.get_payload(decode=True)).decode()  # type: ignore[arg-type]  # bytes: an image
            page = re.sub(r"cid:[^\"']+", f"data:image/png;base64,{data}", page)
    contents = {".eml": mail.as_bytes(), ".txt": text.get_content().encode(), ".html": page.encode()}
    files = [path.with_name(path.name + ending) for ending in contents]
    for file, content in zip(files, contents.values(), strict=True):
        file.write_bytes(content)
    return files
