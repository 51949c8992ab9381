"""Writes a letter as a mail: text and HTML that say the same, the picture inside, headers for filters."""

from __future__ import annotations

import io
import textwrap
import zipfile
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime, parseaddr
from typing import cast

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from cancellations.domain.events import FACTS, PREFIX, DigestPublished, OutlookPublished
from cancellations.domain.lines import column_lines, notable, one_line, signal_lines
from cancellations.domain.promotion import Kind, Trial
from cancellations.errors import BadInput
from cancellations.mail.digest import digest_tables
from cancellations.mail.outlook import outlook_tables
from cancellations.mail.wording import words
from cancellations.mail.wording.sentences import version
from cancellations.ports import Letter
from cancellations.settings import Mail

# More rows are a table that nobody reads on a phone; the report has all of them.
COLUMNS_SHOWN = 8
ATTACHED = "evidently.zip"

_TEMPLATES = Environment(
    loader=PackageLoader("cancellations.mail"),
    autoescape=select_autoescape(enabled_extensions=("html.j2",)),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _fill(text: str, first: str = "", rest: str | None = None) -> str:
    """Wraps a paragraph of the text part; addresses and commands stay whole."""
    indent = first if rest is None else rest
    return textwrap.fill(
        text, 76, initial_indent=first, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


_TEMPLATES.filters["fill"] = _fill


def write(letter: Letter, mail: Mail, environment: str, now: datetime | None = None) -> EmailMessage:
    """The mail of a letter, from `mail.sender` to `mail.owners`, or to the readers that its message names.

    `environment` stands in front of the subject when it is not empty; `now` (aware, UTC) is the Date,
    the wall clock's when it is not given. The Message-ID is derived from the message's id, so that a
    mail sent twice can be recognised. Raises `BadInput` when the topic has no mail, the payload lacks
    a field, or an address of the settings cannot be used.
    """
    message, stored, trial = letter.message, letter.decision, letter.trial
    report = stored.report if stored else None
    said = words(message.topic, message.payload, report, trial)
    digest = message.topic == DigestPublished.topic
    # A digest shows the last look's signals; its columns are in the picture, its reasons in its own report.
    full = None if digest else report
    reasons = stored.decision.reasons if stored and not digest else message.payload.get("reasons", ())
    published = message.topic == OutlookPublished.topic
    subject = trial.kind.value if trial else "outlook" if published else "drift"
    cid = f"picture.{one_line(message.id)}@cancellations"
    attached = _zipped(letter.page, mail.evidently_kib)
    context = {
        "words": said,
        "environment": one_line(environment),
        "reasons": [one_line(reason) for reason in reasons],
        "report": report,
        "signals": signal_lines(report) if report else [],
        "columns": column_lines(full)[: min(COLUMNS_SHOWN, notable(full))] if full else [],
        "left_out": max(0, notable(full) - COLUMNS_SHOWN) if full else 0,
        "trial": _trial_lines(trial) if trial else [],
        "subject": subject,
        "outlook": outlook_tables(message.payload) if published else None,
        "digest": digest_tables(letter, [f.topic for f in FACTS if not mail.is_read(f.topic)]) if digest else None,
        # A mail is a place where people click: nothing but web addresses becomes a link.
        "links": {one_line(k): v for k, v in letter.links.items() if v.startswith(("http://", "https://"))},
        "cid": cid if letter.picture else None,
        "attached": ATTACHED if attached else None,
        "message_id": one_line(message.id),
        "request_id": one_line(message.payload.get("request_id") or ""),
    }
    out = EmailMessage()
    out["Subject"] = one_line(f"[{environment}] {said.subject}" if environment else said.subject)
    out["From"] = _address(mail.sender, "CANCELLATIONS_MAIL__SENDER")
    own = message.topic.removeprefix(PREFIX) in mail.readers
    setting = "CANCELLATIONS_MAIL__READERS" if own else "CANCELLATIONS_MAIL__OWNERS"
    setting = "CANCELLATIONS_OUTLOOK__READERS" if published else setting
    readers = message.payload["readers"] if published else mail.readers_of(message.topic)
    if not readers:
        raise BadInput(f"nobody would get this mail: {setting} is empty. Name at least one address.")
    out["To"] = [_address(reader, setting) for reader in readers]
    out["Date"] = format_datetime(now or datetime.now(UTC))
    out["Message-ID"] = f"<{one_line(message.id)}@cancellations>"
    out["Auto-Submitted"] = "auto-generated"
    out["List-Id"] = f"<cancellations.{out['From'].addresses[0].domain or 'localhost'}>"
    out["X-Cancellations-Topic"] = message.topic
    # Quoted-printable passes every server, also one without 8BITMIME.
    out.set_content(_TEMPLATES.get_template("mail.txt.j2").render(context), cte="quoted-printable")
    html = _TEMPLATES.get_template("mail.html.j2").render(context)
    out.add_alternative(html, subtype="html", cte="quoted-printable")
    if letter.picture:
        html_part = cast(EmailMessage, out.get_payload(1))
        html_part.add_related(
            letter.picture,
            "image",
            "png",
            cid=f"<{cid}>",
            disposition="inline",
            filename="trial.png" if trial else f"{subject}.png",
        )
    if attached is not None:
        out.add_attachment(attached, "application", "zip", filename=ATTACHED)
    return out


def _zipped(page: bytes | None, most_kib: int) -> bytes | None:
    """Evidently's page in an archive; None where there is none, or it is larger than a mail may be."""
    if page is None or most_kib == 0:
        return None
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        # One time for all: the same page is the same attachment, whenever its mail is sent again.
        archive.writestr(zipfile.ZipInfo("evidently.html"), page, zipfile.ZIP_DEFLATED)
    return out.getvalue() if out.tell() <= most_kib * 1024 else None


def _address(text: str, setting: str) -> Address:
    name, address = parseaddr(text)
    try:
        if not text.isprintable():
            raise ValueError("control character")
        return Address(display_name=name, addr_spec=address)
    except (ValueError, IndexError) as error:
        raise BadInput(f"{setting}: {text!r} is not a mail address. Write it like owner@example.org.") from error


def _trial_lines(trial: Trial) -> list[tuple[str, str]]:
    """The trial as it stands now, in labelled lines."""
    rival, champion = version(trial.rival), version(trial.champion)
    a_trial = trial.kind is Kind.TRIAL
    pair = f"challenger {rival}, champion {champion}" if a_trial else f"champion {champion}, its predecessor {rival}"
    decided = f", by outcomes final until {trial.decided_on}" if trial.decided_on else ""
    read, saved = "no booking yet", "not known yet"
    if trial.evidence:
        step, days = trial.evidence[-1], len(trial.evidence)
        read = f"{step.bookings:,} bookings of {days} {'day' if days == 1 else 'days'}, until {step.day}"
        bounds = "no bounds yet" if step.low is None or step.high is None else f"{step.low:+.4f} to {step.high:+.4f}"
        saved = f"{step.gain:+.4f} a booking ({bounds})".replace("-", "−")  # no line breaks behind a minus
    served = f"{trial.serve_share:.0%} of bookings" if trial.serve_share else "no booking, it scored in shadow"
    return [
        ("Versions", pair),
        ("State", f"{trial.state.value}{decided}"),
        ("Opened on", f"{trial.opened_on}, to end by {trial.last_day}"),
        ("Counted", f"bookings whose outcome became final after {trial.cohort_after}"),
        ("Read", read),
        (f"Log loss that {rival} saves", saved),
        (f"Served {rival}'s score", served),
    ]
