"""The answers of Simile's API; `python -m tools.client` writes this module."""

from __future__ import annotations
from typing import Annotated
from pydantic import BaseModel, ConfigDict, Field


class Filter(BaseModel):
    """
    Which items may answer: those of one of these labels and, for each attribute named, one of its values. 100 values in all.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    label: Annotated[
        str | list[str] | None, Field(description="One value, or several alternatives.")
    ] = None
    attributes: dict[str, str | list[str]] | None = None


class Neighbor(BaseModel):
    """
    An item that is similar to the query.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    item_id: str
    path: Annotated[
        str | None,
        Field(
            description="The item's file, relative to the collection's folder. Absent where SIMILE_UPLOAD_SHOW_PATHS is false."
        ),
    ] = None
    label: str
    attributes: dict[str, str]
    distance: Annotated[float, Field(description="Angular distance, sqrt(2 - 2 cos).")]
    similarity: Annotated[float, Field(description="Cosine.")]
    image_url: str
    thumbnail_url: str
    duplicates: Annotated[
        list[str],
        Field(
            description="Ids of the items folded into this one by collapse, nearest to the query first."
        ),
    ]


class SearchAnswer(BaseModel):
    """
    The neighbours of an image, nearest first.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    query_id: str
    collection: Annotated[str, Field(description="The name of a collection.")]
    index_version: str
    model_id: str
    neighbors: list[Neighbor]
    timings_ms: Annotated[
        dict[str, float],
        Field(
            description="Milliseconds by stage, in the order of the walk: receive, sniff (lookup of an item), publish, embed_queue, decode, batch_wait, model, search_queue, search, rerank, messaging, reply. They add up to total."
        ),
    ]
    matching: Annotated[
        int,
        Field(
            description="How many items of the collection pass the filter, near or far."
        ),
    ]
    next_cursor: Annotated[
        str | None,
        Field(description="Asks for the page after this one; null when there is none."),
    ]
    close_above: Annotated[
        float | None,
        Field(
            description="A similarity that 95 % of the collection's items reach with their nearest neighbour; null in an index of an earlier release, or of few items."
        ),
    ]
    no_close_match: Annotated[
        bool,
        Field(
            description="The nearest item is less similar than `close_above`: nothing in the collection is close. False on pages after the first."
        ),
    ]
    warnings: Annotated[
        list[str],
        Field(
            description="What the caller may have got wrong, such as a label in the filter that no item has; empty where nothing is."
        ),
    ]


class BatchAnswered(BaseModel):
    """
    The answer to one image of a batch.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    name: Annotated[
        str | None, Field(description="The file name that came with the image.")
    ]
    answer: SearchAnswer


class EmbedAnswer(BaseModel):
    """
    An image's vector, of length 1.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    query_id: str
    model_id: str
    dimension: int
    vector: list[float]
    timings_ms: Annotated[
        dict[str, float],
        Field(
            description="Milliseconds by stage, in the order of the walk: receive, sniff (lookup of an item), publish, embed_queue, decode, batch_wait, model, search_queue, search, rerank, messaging, reply. They add up to total."
        ),
    ]


class Building(BaseModel):
    """
    How far an index build is. The version before it, if there is one, answers meanwhile.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    stage: Annotated[
        str,
        Field(description="What the build does now, such as `reading` or `embedding`."),
    ]
    done: Annotated[int, Field(description="Images that are through the stage.")]
    total: Annotated[
        int | None,
        Field(description="Images of the stage; null while they are not counted yet."),
    ]
    failed: Annotated[
        int, Field(description="Files that can't be used and are left out.")
    ]
    eta_seconds: Annotated[
        float | None,
        Field(
            description="How long the build is likely to take still; null while that is unknown."
        ),
    ]


class Limits(BaseModel):
    """
    The limits of images and batches.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    image_max_bytes: int
    image_max_pixels: int
    formats: list[str]
    max_batch_images: int
    batch_max_bytes: int


class Item(BaseModel):
    """
    An image of a collection.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    item_id: str
    path: Annotated[
        str | None,
        Field(
            description="The item's file, relative to the collection's folder. Absent where SIMILE_UPLOAD_SHOW_PATHS is false."
        ),
    ] = None
    label: str
    attributes: dict[str, str]
    width: int
    height: int
    image_url: str
    thumbnail_url: str
    vector: Annotated[
        list[float] | None,
        Field(
            description="The item's vector, of unit length; only where a list of items is asked for with `vectors`."
        ),
    ] = None


class ItemOfCollection(BaseModel):
    """
    An item, with its collection and index version.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    collection: Annotated[str, Field(description="The name of a collection.")]
    index_version: str
    item_id: str
    path: Annotated[
        str | None,
        Field(
            description="The item's file, relative to the collection's folder. Absent where SIMILE_UPLOAD_SHOW_PATHS is false."
        ),
    ] = None
    label: str
    attributes: dict[str, str]
    width: int
    height: int
    image_url: str
    thumbnail_url: str


class Sample(BaseModel):
    """
    Some items of a collection, spread over it.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    collection: Annotated[str, Field(description="The name of a collection.")]
    index_version: str
    items: list[Item]


class Facet(BaseModel):
    """
    A value that a filter can name, and its number of items.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    value: str
    count: int


class Facets(BaseModel):
    """
    The labels and attributes that a filter can name.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    collection: Annotated[str, Field(description="The name of a collection.")]
    index_version: str
    labels: list[Facet]
    attributes: dict[str, list[Facet]]
    label_values: Annotated[
        int,
        Field(
            description="How many labels there are; `labels` holds the 200 most frequent."
        ),
    ]
    attribute_values: Annotated[
        dict[str, int],
        Field(
            description="How many values each attribute has; `attributes` holds the 200 most frequent."
        ),
    ]


class QueryStatistics(BaseModel):
    """
    Queries of the last minutes.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    per_second: float
    by_code: Annotated[
        dict[str, int],
        Field(description="Answered queries by code: ok, or an error's."),
    ]
    in_flight: int
    in_flight_limit: int
    count: int
    mean_ms: float | None
    p50_ms: float | None
    p99_ms: float | None


class StageStatistics(BaseModel):
    """
    The time that queries of the last minutes spent in a stage.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    stage: str
    count: int
    mean_ms: float | None
    p50_ms: float | None
    p99_ms: float | None


class CanaryStatistics(BaseModel):
    """
    Queries whose answer is known.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    by_code: Annotated[
        dict[str, int], Field(description="Canaries by code: ok, or an error's.")
    ]
    success_unix_ms: Annotated[
        int | None, Field(description="When one was answered rightly last.")
    ]


class Problem(BaseModel):
    """
    An error, as an RFC 9457 problem body.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    type: str
    title: str
    status: int
    detail: str
    code: Annotated[str, Field(description="A stable name of what went wrong.")]
    correlation_id: str


class Items(BaseModel):
    """
    A page of the items of a collection.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    collection: Annotated[str, Field(description="The name of a collection.")]
    index_version: str
    model_id: Annotated[str, Field(description="The model that made the vectors.")]
    matching: Annotated[
        int, Field(description="How many items of the collection pass the filter.")
    ]
    items: list[Item]
    next_cursor: Annotated[
        str | None,
        Field(description="Asks for the page after this one; null when there is none."),
    ]
    warnings: Annotated[
        list[str],
        Field(
            description="What the caller may have got wrong, such as a label in the filter that no item has; empty where nothing is."
        ),
    ]


class KeptVersion(BaseModel):
    """
    A version of a collection that is on the volume.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    collection: Annotated[str, Field(description="The name of a collection.")]
    index_version: str
    active: Annotated[bool, Field(description="True for the version that answers.")]
    count: int
    recall: float
    created_unix_ms: int


class LiveRecall(BaseModel):
    """
    How many of the true neighbours the answers held, of those that this process also searched exactly.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    recall: float
    neighbors: Annotated[
        int, Field(description="The true neighbours that were looked for.")
    ]


class BatchFailed(BaseModel):
    """
    The problem of one image of a batch.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    name: Annotated[
        str | None, Field(description="The file name that came with the image.")
    ]
    problem: Problem


class Collection(BaseModel):
    """
    A collection that can be searched or is being built.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    name: Annotated[str, Field(description="The name of a collection.")]
    count: Annotated[
        int,
        Field(
            description="Images that can be searched; 0 while the first index is being built."
        ),
    ]
    model_id: str | None
    dimension: int | None
    index_version: Annotated[
        str | None,
        Field(
            description="null while the first index is being built: a search is then answered with 503 `index_building`."
        ),
    ]
    recall: Annotated[
        float | None,
        Field(description="Recall@10 against exact search, measured at build."),
    ]
    created_unix_ms: int | None
    method: Annotated[
        str | None,
        Field(
            description="How it is searched; null while the first index is being built."
        ),
    ]
    recall_target: Annotated[
        float | None, Field(description="The recall that its method was chosen for.")
    ]
    building: Annotated[
        Building | None,
        Field(
            description="The build that runs now, in whatever process; null when there is none."
        ),
    ]


class Collections(BaseModel):
    """
    All collections, and the limits of images.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    collections: list[Collection]
    limits: Limits
    default_collection: Annotated[
        str | None,
        Field(
            description="The collection of a query that names none; null where a query has to name one."
        ),
    ]


class Status(BaseModel):
    """
    The state of a replica and of its last minutes.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    replica: str
    version: str
    started_unix_ms: int
    live: Annotated[bool, Field(description="False when only a restart helps.")]
    ready: bool
    failing: Annotated[
        dict[str, str],
        Field(description="The checks against readiness, with their reasons."),
    ]
    window_seconds: Annotated[
        float,
        Field(
            description="How long the last minutes are: up to 315 s, less after the start."
        ),
    ]
    queries: QueryStatistics
    stages: Annotated[
        list[StageStatistics],
        Field(
            description="Time of answered queries in each stage, in the order of their way."
        ),
    ]
    canary: CanaryStatistics
    queues: Annotated[
        dict[str, int],
        Field(
            description="Messages that wait, by queue, as seen in the last 15 seconds; empty while the broker is unavailable."
        ),
    ]
    collections: list[Collection]
    versions: Annotated[
        list[KeptVersion],
        Field(description="The newest versions of each collection, newest first."),
    ]
    live_recall: Annotated[
        dict[str, LiveRecall],
        Field(
            description="By collection. Empty where searchers run in other processes: their metrics have it."
        ),
    ]


class BatchAnswer(BaseModel):
    """
    A result for each image, in their order.
    """

    model_config = ConfigDict(
        extra="allow",
        frozen=True,
        use_attribute_docstrings=True,
    )
    query_id: str
    collection: Annotated[str, Field(description="The name of a collection.")]
    results: list[BatchAnswered | BatchFailed]
