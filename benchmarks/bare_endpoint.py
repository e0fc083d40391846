"""A bare FastAPI endpoint to compare with: it parses the body of a question and returns a constant."""

from fastapi import FastAPI

from service.schemas.mixture import PointsBody

app = FastAPI()


@app.post("/log-density")
async def log_density(body: PointsBody) -> dict[str, list[float]]:
    """Returns one number whatever the points are."""
    del body
    return {"log_density": [-1.8378770664093453]}
