"""Starting the server, with the page or without."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from perpixel.app.guard import is_loopback, read_passwords
from perpixel.console import Console
from perpixel.errors import RequestError

__all__ = ["serve"]

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
    passwords = read_passwords(auth) if auth else {}
    if images is not None and not images.is_dir():
        raise RequestError("there is no such folder", where=images)
    os.environ.update(_QUIET)
    service_api = build(runs, images=images, passwords=passwords, loopback=is_loopback(host), pictures=pictures)
    import uvicorn

    if not is_loopback(host) and not passwords:
        console.say("WARNING: whoever reaches this address may use these models; --auth FILE asks for a password.")
    console.say(f"http://{host}:{port}{'' if pictures else '/api/health'}  (Ctrl-C ends it)")
    uvicorn.run(service_api, host=host, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=3)


def build(runs: Path, *, images: Path | None, passwords: Mapping[str, str], loopback: bool, pictures: bool) -> Any:
    """The application; raises RequestError when the extra ``page`` is not installed."""
    try:
        from perpixel.app.http import add_files, build_api
        from perpixel.app.service import Service

        service = Service(runs, images=images)
        api = build_api(service, passwords=passwords, loopback=loopback)
        if not pictures:
            return api
        from perpixel.app.page import mount_page

        add_files(api, service)
        return mount_page(api, service)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {
            "fastapi",
            "gradio",
            "python_multipart",
            "starlette",
            "uvicorn",
        }:
            raise
        raise RequestError(
            f"the package {error.name} is not installed", cure="pip install 'perpixel[page]', the extra of the page."
        ) from None
