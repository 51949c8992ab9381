"""Sends letters by SMTP."""

from __future__ import annotations

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass

from cancellations.domain.lines import one_line
from cancellations.errors import BadInput, ServiceDown
from cancellations.mail.message import write
from cancellations.ports import Letter
from cancellations.settings import Mail

_WRONG_ADDRESS = "Correct CANCELLATIONS_MAIL__OWNERS, or CANCELLATIONS_OUTLOOK__READERS, if an address is wrong."


@dataclass(frozen=True)
class SmtpMailer:
    """The owners' mail server (`ports.Mailer`): one connection a letter.

    Certificates are verified with the system's authorities; a private one is trusted by the usual
    environment variable `SSL_CERT_FILE`. STARTTLS that the server does not offer is an error, never
    a fall back to plain text.
    """

    mail: Mail
    environment: str = ""

    def send(self, letter: Letter) -> None:
        """Returns when the server has taken the mail for every owner, at once where nobody reads its kind.

        Raises `ServiceDown` for whatever the server or the way to it says no with, a wrong password
        or address too: settings can be mended while the message waits. When it names owners that
        were refused, the others have the mail. Raises `BadInput` when the mail cannot be written.
        """
        if not self.mail.is_read(letter.message.topic):
            return
        message = write(letter, self.mail, self.environment)
        asked = len(message["To"].addresses)
        with self._talking("did not take the mail") as server:
            refused = server.send_message(message)
            # The mail is taken by now: a goodbye that goes wrong must not send it again.
            with suppress(OSError):
                server.quit()
        if refused:
            raise ServiceDown(
                f"{self._place} took the mail for {asked - len(refused)} of"
                f" {asked} owners; it refused {_answers(refused)}. {_WRONG_ADDRESS}"
            )

    def greet(self) -> None:
        """Says hello, encrypts and logs in as for a mail, and leaves without one.

        Raises what `send` raises where the server, the way to it or the login says no.
        """
        with self._talking("would not take a mail") as server:
            server.ehlo_or_helo_if_needed()
            with suppress(OSError):
                server.quit()

    @contextmanager
    def _talking(self, failed: str) -> Iterator[smtplib.SMTP]:
        """A connection that is encrypted and logged in as the settings say; tells what went wrong with it."""
        try:
            with closing(self._connect()) as server:
                if self.mail.security == "starttls":
                    server.starttls(context=ssl.create_default_context())
                if self.mail.user:
                    server.login(self.mail.user, self.mail.password or "")
                yield server
        except UnicodeEncodeError as error:
            raise BadInput(
                "CANCELLATIONS_MAIL__USER or __PASSWORD holds a character outside ASCII, which SMTP logins"
                " cannot carry. Choose another."
            ) from error
        except OSError as error:  # smtplib's own errors are OSErrors too
            raise ServiceDown(f"{self._place} {failed}: {self._cause(error)}") from error

    @property
    def _place(self) -> str:
        return f"the SMTP server at {self.mail.host}:{self.mail.port}"

    def _connect(self) -> smtplib.SMTP:
        # smtplib asks the DNS for this machine's name, which takes many seconds on an offline laptop.
        local = "localhost" if self.mail.host in ("127.0.0.1", "::1", "localhost") else None
        where, timeout = (self.mail.host, self.mail.port, local), self.mail.timeout_seconds
        if self.mail.security == "tls":
            return smtplib.SMTP_SSL(*where, timeout=timeout, context=ssl.create_default_context())
        return smtplib.SMTP(*where, timeout=timeout)

    def _cause(self, error: OSError) -> str:
        if isinstance(error, smtplib.SMTPServerDisconnected) and isinstance(error.__context__, TimeoutError):
            error = error.__context__  # smtplib calls a silent server a closed connection
        match error:
            case smtplib.SMTPRecipientsRefused():
                return f"it refused {_answers(error.recipients)}. {_WRONG_ADDRESS}"
            case smtplib.SMTPAuthenticationError():
                return (
                    f"it refused the login: {_answer(error.smtp_code, error.smtp_error)}."
                    " Check CANCELLATIONS_MAIL__USER and __PASSWORD."
                )
            case smtplib.SMTPResponseException():
                return f"it answered {_answer(error.smtp_code, error.smtp_error)}."
            case smtplib.SMTPServerDisconnected():
                return "it closed the connection. Check its log, and CANCELLATIONS_MAIL__SECURITY."
            case smtplib.SMTPNotSupportedError():
                return f"{one_line(error)} Check CANCELLATIONS_MAIL__SECURITY and __USER."
            case ssl.SSLCertVerificationError():
                return (
                    f"its certificate is not trusted ({error.verify_message})."
                    " Name your authority's file in SSL_CERT_FILE, or correct CANCELLATIONS_MAIL__HOST."
                )
            case TimeoutError():
                return (
                    f"no answer within {self.mail.timeout_seconds:g} s."
                    " Check that it runs, and CANCELLATIONS_MAIL__HOST, __PORT and __SECURITY."
                )
            case _:
                return (
                    f"{one_line(error.strerror or error)}."
                    " Start it, or correct CANCELLATIONS_MAIL__HOST, __PORT and __SECURITY."
                )


def _answer(code: int, text: bytes | str) -> str:
    return f"{code} {one_line(text.decode(errors='replace') if isinstance(text, bytes) else text)}".rstrip(". ")


def _answers(refused: dict[str, tuple[int, bytes]]) -> str:
    return ", ".join(f"{owner} ({_answer(*answer)})" for owner, answer in refused.items())
