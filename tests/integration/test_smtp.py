"""Mails over real SMTP: into the local mailbox, and against servers that refuse, drop and encrypt."""

from __future__ import annotations

import ipaddress
import os
import signal
import smtplib
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cancellations.bootstrap import sample_mails, send_sample
from cancellations.domain.events import ChampionChanged
from cancellations.errors import BadInput, ServiceDown
from cancellations.mail.smtp import SmtpMailer
from cancellations.ports import Letter
from cancellations.settings import Mail, Settings

ROOT = Path(__file__).parents[2]
PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
LETTER = Letter(
    ChampionChanged("2", "1", 3, date(2016, 5, 29), "promoted", "a hunch", "a person (ada)").messages()[0],
    picture=PICTURE,
)


def mail_to(port: int, **changes: Any) -> Mail:
    known = {"port": port, "timeout_seconds": 5.0, "owners": ["ada@hotel.example", "bo@hotel.example"]}
    return Mail(**{**known, **changes})


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# --- the local mailbox ----------------------------------------------------------------------------


def start(folder: Path, port: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "deployments.mailbox", "--port", str(port), "--folder", str(folder)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@contextmanager
def mailbox(folder: Path) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """A running mailbox on a port of the system's choice: its port, and the process."""
    process = start(folder)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline()
        assert ready.startswith("mailbox ready: smtp 127.0.0.1:"), ready
        yield int(ready.split("127.0.0.1:")[1].split(",")[0]), process
    finally:
        process.terminate()
        process.communicate(timeout=10)


def test_mail_lies_in_the_folder_and_reads_back_with_its_picture(tmp_path: Path) -> None:
    folder = tmp_path / "home" / "outbox"
    with mailbox(folder) as (port, _):
        SmtpMailer(mail_to(port), "staging").send(LETTER)
        files = list(folder.iterdir())
    assert len(files) == 1
    assert files[0].name.endswith("Z-staging-promoted-by-a-person-ada-v2-serves-in-place-of-v1-past-gate-and-trial.eml")
    read = message_from_bytes(files[0].read_bytes(), policy=default)
    assert isinstance(read, EmailMessage)
    assert read["Subject"] == "[staging] Promoted by a person (ada): v2 serves in place of v1, past gate and trial"
    body = read.get_body(("plain",))
    assert body is not None and "v2 serves in place of v1" in body.get_content()
    pictures = [p for p in read.walk() if p.get_content_type() == "image/png"]
    assert [p.get_content() for p in pictures] == [PICTURE]


def test_the_same_message_again_is_accepted_and_kept_once_also_after_a_restart(tmp_path: Path) -> None:
    other = replace(LETTER, message=replace(LETTER.message, id="another"))
    for letters in ([LETTER, LETTER], [LETTER, other]):
        with mailbox(tmp_path) as (port, _):
            for letter in letters:
                SmtpMailer(mail_to(port)).send(letter)
    ids = [message_from_bytes(p.read_bytes(), policy=default)["Message-ID"] for p in sorted(tmp_path.iterdir())]
    assert ids == [f"<{LETTER.message.id}@cancellations>", "<another@cancellations>"]


def test_messages_without_an_id_or_a_subject_are_kept_each(tmp_path: Path) -> None:
    with mailbox(tmp_path) as (port, _):
        for subject in ("", "Subject: ../../etc/pässwd\r\n", "Subject: =?utf-8?q?caf=C3=A9?=\r\n"):
            with smtplib.SMTP("127.0.0.1", port, "localhost") as server:
                server.sendmail("a@b", ["c@d"], f"{subject}To: c@d\r\n\r\nhello\r\n".encode())
        names = sorted(p.name.split("Z-")[1] for p in tmp_path.iterdir())
    assert names[0] == "cafe.eml" and "mail.eml" in names and len(names) == 3
    assert not any("/" in n or n.startswith(".") for n in names)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_mailbox_stops_cleanly_and_silently_also_with_a_client_connected(
    tmp_path: Path, number: signal.Signals
) -> None:
    with mailbox(tmp_path) as (port, process), smtplib.SMTP("127.0.0.1", port, "localhost"):
        process.send_signal(number)
        _, complaints = process.communicate(timeout=10)
        assert process.returncode == 0 and complaints == ""


def test_a_port_that_is_taken_is_one_sentence_and_exit_code_3(tmp_path: Path) -> None:
    with mailbox(tmp_path) as (port, _):
        process = start(tmp_path, port)
        out, complaint = process.communicate(timeout=10)
    assert process.returncode == 3 and out == ""
    assert f"127.0.0.1:{port}" in complaint and "--port" in complaint and len(complaint.splitlines()) == 1


def test_a_folder_that_cannot_be_used_is_one_sentence_and_exit_code_2(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.write_text("in the way")
    process = start(taken / "outbox")
    out, complaint = process.communicate(timeout=10)
    assert process.returncode == 2 and out == ""
    assert str(taken) in complaint and "--folder" in complaint and len(complaint.splitlines()) == 1


def test_a_folder_that_vanishes_leaves_the_mail_with_its_sender(tmp_path: Path) -> None:
    folder = tmp_path / "outbox"
    with mailbox(folder) as (port, _):
        folder.rmdir()
        with pytest.raises(ServiceDown, match="452 the message cannot be kept"):
            SmtpMailer(mail_to(port)).send(LETTER)
        folder.mkdir()
        SmtpMailer(mail_to(port)).send(LETTER)
    assert len(list(folder.iterdir())) == 1


def test_mailbox_starts_without_the_heavy_libraries() -> None:
    code = "import sys, deployments.mailbox; print(sorted({'pandas', 'prefect', 'mlflow', 'numpy'} & set(sys.modules)))"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "[]"


def test_a_kind_that_nobody_reads_asks_no_server() -> None:
    kind = LETTER.message.topic.removeprefix("cancellations.")
    nobody = mail_to(free_port()).model_copy(update={"readers": {kind: []}})
    SmtpMailer(nobody).send(LETTER)
    with pytest.raises(ServiceDown):
        SmtpMailer(nobody.model_copy(update={"readers": {}})).send(LETTER)


# --- servers that say no --------------------------------------------------------------------------


def test_no_server_is_told_with_its_place_and_keeps_the_cause() -> None:
    port = free_port()
    with pytest.raises(
        ServiceDown, match=rf"127\.0\.0\.1:{port}.*Connection refused.*CANCELLATIONS_MAIL__HOST, __PORT"
    ) as told:
        SmtpMailer(mail_to(port)).send(LETTER)
    assert isinstance(told.value.__cause__, ConnectionRefusedError)


@contextmanager
def listener(answer: bytes | None) -> Iterator[int]:
    """A server that sends `answer` and drops each connection, or with None says nothing at all."""
    kept: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def run() -> None:
            while True:
                try:
                    client, _ = server.accept()
                except OSError:
                    return
                if answer is None:
                    kept.append(client)
                else:
                    client.sendall(answer)
                    client.close()

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for client in kept:
                client.close()


@pytest.mark.parametrize("answer", [b"", b"220 hello\r\n", b"421 too busy\r\n"])
def test_a_dropped_connection_is_a_service_down(answer: bytes) -> None:
    with listener(answer) as port, pytest.raises(ServiceDown, match=rf"127\.0\.0\.1:{port} did not take the mail"):
        SmtpMailer(mail_to(port)).send(LETTER)


@pytest.mark.parametrize("security", ["none", "tls"])
def test_a_silent_server_does_not_hang_the_flow(security: str) -> None:
    with listener(None) as port, pytest.raises(ServiceDown, match=r"no answer within 0\.2 s"):
        SmtpMailer(mail_to(port, timeout_seconds=0.2, security=security)).send(LETTER)


class Postmaster:
    """Handler that answers recipients as told and remembers what it took."""

    def __init__(self, **answers: str) -> None:
        self.answers = answers
        self.taken: list[list[str]] = []

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        answer = self.answers.get(address.split("@")[0], "250 OK")
        if answer.startswith("250"):
            envelope.rcpt_tos.append(address)
        return answer

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.taken.append(list(envelope.rcpt_tos))
        return self.answers.get("data", "250 OK")

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any) -> str:
        return self.answers.get("quit", "221 Bye")


@contextmanager
def smtp_server(handler: Postmaster, **options: Any) -> Iterator[int]:
    port = free_port()
    controller = Controller(handler, hostname="127.0.0.1", port=port, server_hostname="localhost", **options)
    controller.start()
    try:
        yield port
    finally:
        controller.stop()


@pytest.mark.parametrize("code", [450, 550])
def test_recipients_refused_for_now_or_for_good_are_named_and_nothing_is_sent(code: int) -> None:
    handler = Postmaster(ada=f"{code} not today", bo=f"{code} unknown")
    with smtp_server(handler) as port, pytest.raises(ServiceDown) as told:
        SmtpMailer(mail_to(port)).send(LETTER)
    assert f"ada@hotel.example ({code} not today)" in str(told.value)
    assert f"bo@hotel.example ({code} unknown)" in str(told.value)
    assert "CANCELLATIONS_MAIL__OWNERS" in str(told.value)
    assert handler.taken == []


def test_when_some_owners_are_refused_the_others_have_the_mail_and_the_refused_are_named() -> None:
    handler = Postmaster(bo="550 no such user")
    with smtp_server(handler) as port, pytest.raises(ServiceDown) as told:
        SmtpMailer(mail_to(port)).send(LETTER)
    assert "for 1 of 2 owners; it refused bo@hotel.example (550 no such user)" in str(told.value)
    assert handler.taken == [["ada@hotel.example"]]


@pytest.mark.parametrize("answer", ["451 disk full", "554 looks like spam"])
def test_a_mail_that_the_server_does_not_take_is_told_with_its_answer(answer: str) -> None:
    with smtp_server(Postmaster(data=answer)) as port, pytest.raises(ServiceDown, match=f"it answered {answer}"):
        SmtpMailer(mail_to(port)).send(LETTER)


def test_a_bad_goodbye_after_the_mail_was_taken_does_not_send_it_again() -> None:
    handler = Postmaster(quit="421 going down")
    with smtp_server(handler) as port:
        SmtpMailer(mail_to(port)).send(LETTER)
    assert handler.taken == [["ada@hotel.example", "bo@hotel.example"]]


# --- encryption and login -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A self-signed certificate of 127.0.0.1: its file, and a server's context with it."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mail of a test")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "server.pem", folder / "server.key"
    public.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(public, private)
    return public, context


def one_user(server: Any, session: Any, envelope: Any, mechanism: str, login: Any) -> AuthResult:
    return AuthResult(success=(login.login, login.password) == (b"model", b"secret"), handled=False)


def options_for(security: str, context: ssl.SSLContext) -> dict[str, Any]:
    if security == "tls":
        return {"ssl_context": context}
    return {"tls_context": context, "require_starttls": True, "authenticator": one_user, "auth_required": True}


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_that_nobody_signed_is_refused(certificate: tuple[Path, ssl.SSLContext], security: str) -> None:
    handler = Postmaster()
    with (
        smtp_server(handler, **options_for(security, certificate[1])) as port,
        pytest.raises(ServiceDown, match=r"certificate is not trusted .*SSL_CERT_FILE"),
    ):
        SmtpMailer(mail_to(port, security=security)).send(LETTER)
    assert handler.taken == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_mail_goes_encrypted_to_a_server_whose_authority_is_named(
    certificate: tuple[Path, ssl.SSLContext], security: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate[0]))
    login = {"user": "model", "password": "secret"} if security == "starttls" else {}
    handler = Postmaster()
    with smtp_server(handler, **options_for(security, certificate[1])) as port:
        SmtpMailer(mail_to(port, security=security, **login)).send(LETTER)
    assert len(handler.taken) == 1


def test_a_wrong_password_is_told_without_being_shown(
    certificate: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", os.fspath(certificate[0]))
    with smtp_server(Postmaster(), **options_for("starttls", certificate[1])) as port:
        with pytest.raises(ServiceDown, match="refused the login: 535") as told:
            SmtpMailer(mail_to(port, security="starttls", user="model", password="not-this")).send(LETTER)
        with pytest.raises(BadInput, match="outside ASCII"):
            SmtpMailer(mail_to(port, security="starttls", user="model", password="pässword")).send(LETTER)
    assert "not-this" not in str(told.value)


def test_starttls_that_is_not_offered_never_falls_back_to_plain_text() -> None:
    handler = Postmaster()
    with smtp_server(handler) as port, pytest.raises(ServiceDown, match="CANCELLATIONS_MAIL__SECURITY"):
        SmtpMailer(mail_to(port, security="starttls")).send(LETTER)
    assert handler.taken == []


def test_a_sample_of_each_kind_reaches_a_real_server_with_an_id_of_its_own_each_time(tmp_path: Path) -> None:
    with mailbox(tmp_path) as (port, _):
        known = Settings(home=tmp_path, mail=Mail(host="127.0.0.1", port=port, owners=["ada@hotel.example"]))
        kinds = list(sample_mails(known))
        for kind in (*kinds, kinds[0]):
            send_sample(known, kind)
    assert len(list(tmp_path.glob("*.eml"))) == len(kinds) + 1
