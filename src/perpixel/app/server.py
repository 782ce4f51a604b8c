"""Starting the server, with the page or without."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from perpixel.console import Console
from perpixel.errors import RequestError

__all__ = ["serve"]

_EXTRA = {"fastapi", "gradio", "python_multipart", "starlette", "uvicorn"}

# Nothing is asked of the network; read when gradio and huggingface_hub are imported.
_QUIET = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def serve(
    runs: Path, *, images: Path | None, host: str, port: int, auth: Path | None, pictures: bool, console: Console
) -> None:
    """Serve the runs below a folder until Ctrl-C.

    Args:
        images: a folder below which visitors may name folders of images.
        auth: a file with a line ``name:password`` a visitor.
        pictures: whether there is a page, or HTTP alone.

    Raises:
        RequestError: the extra ``page`` is not installed, or ``auth`` or ``images`` cannot be used.
    """
    if images is not None and not images.is_dir():
        raise RequestError("there is no such folder", where=images)
    os.environ.update(_QUIET)
    try:
        import uvicorn

        from perpixel.app.files import INBOX
        from perpixel.app.guard import is_loopback, read_passwords
        from perpixel.app.http import add_files, build_api
        from perpixel.app.service import Service

        if pictures:
            from perpixel.app.page import mount_page
    except ModuleNotFoundError as error:
        raise _without_extra(error) from None
    passwords = read_passwords(auth) if auth else {}
    service = Service(runs, images=images)
    os.environ["GRADIO_TEMP_DIR"] = str(service.results.root / INBOX / "gradio")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the default would leave the results behind
    try:
        application = build_api(service, passwords=passwords, loopback=is_loopback(host))
        if pictures:
            add_files(application, service)
            mount_page(application, service)
        if not is_loopback(host) and not passwords:
            console.say("WARNING: whoever reaches this address may use these models; --auth FILE asks for a password.")
        console.say(f"http://{host}:{port}{'' if pictures else '/api/health'}  (Ctrl-C ends it)")
        uvicorn.run(application, host=host, port=port, log_level="warning", timeout_graceful_shutdown=3)
    finally:
        service.close()


def _without_extra(error: ModuleNotFoundError) -> Exception:
    if (error.name or "").partition(".")[0] not in _EXTRA:
        return error
    return RequestError(
        f"the package {error.name} is not installed", cure="pip install 'perpixel[page]', the extra of the page."
    )
