"""`/v1/classify`: label words and their probabilities, of the model's own labels or of the request's."""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter
from fastapi.responses import JSONResponse
from starlette.responses import Response

from glotfuse.serving.http.answers import ClientAnswer
from glotfuse.serving.http.schemas import ClassifyBody
from glotfuse.serving.http.service import Shared, head
from glotfuse.serving.requests import ClassifyRequest

router = APIRouter()


@router.post("/v1/classify")
async def classify(body: ClassifyBody, service: Shared) -> Response:
    """Labels one or several texts."""
    model = service.check_model(body.model)
    request = ClassifyRequest(
        texts=tuple(body.input),
        language=body.language,
        labels=None if body.labels is None else tuple(body.labels),
        instruction=body.instruction,
    )

    async def work() -> Response:
        results = await service.engine.classify(request)
        data = [{"index": index, "object": "classification", **asdict(result)} for index, result in enumerate(results)]
        for result in results:
            service.metrics.texts.labels("classify", str(result.truncated).lower()).inc()
        return JSONResponse({**head("cls", "list", model), "data": data})

    return ClientAnswer(work, service.settings.timeout)
