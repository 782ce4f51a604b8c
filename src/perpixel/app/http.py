"""The HTTP service: health, runs, predictions. The page is mounted beside it."""

from __future__ import annotations

import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import FastAPI, File, Form, Query, Request, UploadFile
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response

from perpixel.app import html
from perpixel.app.guard import Guard, TooLargeError
from perpixel.app.limits import BusyError, SlowError
from perpixel.app.service import Service
from perpixel.errors import PerpixelError, RequestError

__all__ = ["build_api"]

_STATIC = Path(__file__).parent / "static"
_DESCRIPTION = (
    "Predictions of trained runs. The figures are those of `perpixel evaluate` on the same image. Errors are JSON with"
    " `error` (what happened) and `cure` (what to do); 429 says when to come again in `Retry-After`."
)
_JSON_ERROR = {
    "application/json": {
        "schema": {
            "type": "object",
            "properties": {key: {"type": "string", "nullable": True} for key in ("error", "where", "rule", "cure")},
            "required": ["error"],
        }
    }
}
_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "the prediction, in the form that was asked for",
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "image/png": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
    413: {"description": "the request is too large", "content": _JSON_ERROR},
    422: {"description": "no such run, or a file that is not read", "content": _JSON_ERROR},
    429: {
        "description": "too many wait for this model",
        "content": _JSON_ERROR,
        "headers": {"Retry-After": {"description": "seconds to wait", "schema": {"type": "integer"}}},
    },
    503: {"description": "the prediction takes longer than a request may", "content": _JSON_ERROR},
}
# Reports are of this machine, but may quote names that come from elsewhere: their scripts can reach nothing.
_ALONE = {
    "content-security-policy": "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src"
    " 'unsafe-inline'; img-src data:; frame-ancestors 'self'"
}


def build_api(service: Service, *, passwords: Mapping[str, str] | None = None, loopback: bool = True) -> FastAPI:
    """The application under /api, without pictures; documented by /api/openapi.json."""
    api = FastAPI(
        title="perpixel",
        description=_DESCRIPTION,
        openapi_url="/api/openapi.json",
        docs_url=None,  # both would load scripts from elsewhere
        redoc_url=None,
    )
    api.add_middleware(Guard, upload_bytes=service.limits.upload_bytes, passwords=passwords or {}, loopback=loopback)
    api.add_exception_handler(PerpixelError, _told)
    api.add_exception_handler(TooLargeError, _too_large)
    _add_verbs(api, service)
    return api


def _add_verbs(api: FastAPI, service: Service) -> None:
    @api.get("/api/health")
    def health() -> dict[str, Any]:
        """Whether there is a run to predict with: ``status`` is ``ok`` or ``no trained run``; ``runs`` counts them."""
        return service.health()

    @api.get("/api/runs")
    def runs() -> list[dict[str, Any]]:
        """The runs, ensembles and exported files: what they predict (``view``), their ``figures`` by evaluation, the
        mean of the ``monitor`` figure over images with its 95 % interval (``intervals``), and guards that failed
        (``warnings``)."""
        return [_finite(service.library.card(name).as_dict()) for name in service.library.names()]

    @api.post("/api/predict", response_class=Response, responses=_RESPONSES)
    def predict(
        run: Annotated[str, Form(description="a name of /api/runs")],
        image: Annotated[UploadFile, File(description="PNG, JPEG, TIFF, WebP, BMP or GIF of one picture")],
        truth: Annotated[UploadFile | None, File(description="the target file that belongs to the image")] = None,
        form: Annotated[
            Literal["png", "npy", "json"],
            Form(
                alias="format",
                description="png: as `perpixel predict` writes it; npy: the map; json: figures, times",
            ),
        ] = "json",
    ) -> Response:
        """Predict an image at its original size; with a truth, its figures come too."""
        with tempfile.TemporaryDirectory(prefix="perpixel-api-") as place:
            folder = Path(place)
            kept = _keep(image, folder / "image")
            held = _keep(truth, folder / "truth") if truth is not None and truth.filename else None
            prediction = service.predict(run, kept, held, called=image.filename or "image")
            if form == "json":
                return JSONResponse(_finite(prediction.as_dict()))
            if form == "npy":
                content = io.BytesIO()
                np.save(content, prediction.prediction_hw, allow_pickle=False)
                return Response(content.getvalue(), media_type="application/octet-stream")
            files = prediction.task.write_prediction(
                folder / "out", prediction.image_hwc, prediction.scores_khw, prediction.prediction_hw
            )
            raw = next((file for file in files if file.suffix == ".png"), None)
            if raw is None:
                raise RequestError("this run writes no PNG", cure="ask for format=npy.")
            return Response(raw.read_bytes(), media_type="image/png")


def add_files(api: FastAPI, service: Service) -> None:
    """What the page shows: results, and its own script and style."""

    @api.get("/results/{token}/{name}", include_in_schema=False)
    def result(token: str, name: str) -> Response:
        path = service.results.find(token, name)
        if path is None:
            return JSONResponse({"error": "this result is gone: results are kept for an hour"}, 404)
        alone = _ALONE if path.suffix == ".html" else {}
        return FileResponse(path, headers={"cache-control": "private, max-age=3600"} | alone)

    @api.get("/report", include_in_schema=False)
    def report(run: Annotated[list[str], Query()]) -> Response:
        try:
            return HTMLResponse(service.report(run), headers=_ALONE)
        except PerpixelError as problem:
            return HTMLResponse(f"<!doctype html><title>perpixel</title>{html.error(problem)}", 422, headers=_ALONE)

    @api.get("/perpixel/{name}", include_in_schema=False)
    def static(name: str) -> Response:
        path = next((path for path in _STATIC.iterdir() if path.name == name), None)
        return FileResponse(path) if path is not None else JSONResponse({"error": "no such file"}, 404)


def _keep(upload: UploadFile, path: Path) -> Path:
    with path.open("wb") as file:
        shutil.copyfileobj(upload.file, file)
    return path


def _told(request: Request, error: Exception) -> Response:
    assert isinstance(error, PerpixelError)
    content = {"error": error.what, "where": error.where, "rule": error.rule, "cure": error.cure}
    if isinstance(error, BusyError):
        return JSONResponse(content, 429, {"retry-after": str(error.seconds)})
    if isinstance(error, SlowError):
        return JSONResponse(content, 503)
    return JSONResponse(content, 422 if isinstance(error, RequestError) or error.exit_status == 2 else 500)


def _too_large(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the request is too large", "cure": "send a smaller file."}, 413)


def _finite(value: Any) -> Any:
    """JSON knows no NaN: it becomes null."""
    return json.loads(json.dumps(value), parse_constant=lambda _: None)
