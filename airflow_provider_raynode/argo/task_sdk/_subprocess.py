"""The supervisor's socket, for the Python processes that a task starts.

The operators for virtual environments and external Pythons run a script that connects to it where Airflow is
installed there: for variables, connections and XComs, and to hand its log lines over.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic import TypeAdapter

    from airflow_provider_raynode.argo.task_sdk._comms import CatalogComms

# Where the SDK in the child process looks for the socket's file descriptor.
_FD_VARIABLE = "__AIRFLOW_SUPERVISOR_FD"
_HEADER = 4


@contextlib.contextmanager
def subprocess_channel(comms: CatalogComms) -> Iterator[None]:
    """Answer, while the context lasts, what child processes of this one ask their supervisor."""
    ours, theirs = socket.socketpair()
    os.set_inheritable(theirs.fileno(), True)
    before = os.environ.get(_FD_VARIABLE)
    os.environ[_FD_VARIABLE] = str(theirs.fileno())
    thread = threading.Thread(target=_serve, args=(ours, comms), name="raynode-supervisor", daemon=True)
    thread.start()
    try:
        yield
    finally:
        os.environ.pop(_FD_VARIABLE, None)
        if before is not None:
            os.environ[_FD_VARIABLE] = before
        theirs.close()
        with contextlib.suppress(OSError):
            ours.shutdown(socket.SHUT_RDWR)
        thread.join(timeout=1)
        ours.close()


def _serve(ours: socket.socket, comms: CatalogComms) -> None:
    with contextlib.suppress(OSError):
        data = _read(ours)
        if data is None:
            # Most tasks start no such process: what its messages look like is not worked out then.
            return
        import msgspec
        from airflow.sdk.execution_time.comms import ToSupervisor, _RequestFrame
        from pydantic import TypeAdapter

        decoder = msgspec.msgpack.Decoder(_RequestFrame)
        messages: TypeAdapter[Any] = TypeAdapter(ToSupervisor)
        while data is not None:
            _answer(ours, decoder.decode(data), messages, comms)
            data = _read(ours)


def _answer(ours: socket.socket, request: Any, messages: TypeAdapter[Any], comms: CatalogComms) -> None:
    from airflow.sdk.exceptions import ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse, SentFDs, _ResponseFrame

    try:
        asked = messages.validate_python(request.body)
        if type(asked).__name__ == "ResendLoggingFD":
            logs = _log_socket()
            frame = _ResponseFrame(id=request.id, body=SentFDs(fds=[logs.fileno()]).model_dump())
            socket.send_fds(ours, [frame.as_bytes()], [logs.fileno()])
            logs.close()
            return
        answer = comms.send(asked)
        frame = _ResponseFrame(id=request.id, body=None if answer is None else answer.model_dump())
    except Exception as error:
        refused = ErrorResponse(error=ErrorType.GENERIC_ERROR, detail={"message": str(error)})
        frame = _ResponseFrame(id=request.id, error=refused.model_dump())
    ours.sendall(frame.as_bytes())


def _log_socket() -> socket.socket:
    """Return a socket whose JSON lines go to this process's log."""
    import structlog
    from airflow.sdk.execution_time.supervisor import process_log_messages_from_subprocess

    read, write = socket.socketpair()
    logger: Any = structlog.get_logger(logger_name="task")
    lines = process_log_messages_from_subprocess((logger,))

    def forward() -> None:
        next(lines)
        with read, read.makefile("rb") as stream:
            for line in stream:
                lines.send(line)

    threading.Thread(target=forward, name="raynode-subprocess-log", daemon=True).start()
    return write


def _read(source: socket.socket) -> bytes | None:
    """Return one frame, None at the end of the stream."""
    header = _exactly(source, _HEADER)
    return None if header is None else _exactly(source, int.from_bytes(header, "big"))


def _exactly(source: socket.socket, size: int) -> bytes | None:
    found = bytearray()
    while len(found) < size:
        part = source.recv(size - len(found))
        if not part:
            return None
        found += part
    return bytes(found)
