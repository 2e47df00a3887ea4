from dataclasses import dataclass, field
from itertools import count
from typing import Annotated

from telex import Telex, websocket_listener
from telex.dto import DataclassDTO, DTOConfig, DTOData


@dataclass
class Task:
    id: int
    title: str
    tags: list[str] = field(default_factory=list)


WithoutId = DataclassDTO[Annotated[Task, DTOConfig(exclude={"id"})]]
Changes = DataclassDTO[Annotated[Task, DTOConfig(exclude={"id"}, partial=True)]]

tasks: dict[int, Task] = {}
numbers = count(1)


@websocket_listener("/tasks", dto=WithoutId, return_dto=None)
async def add(data: DTOData[Task]) -> Task:
    task = data.create_instance(id=next(numbers))
    tasks[task.id] = task
    return task


@websocket_listener("/tasks/{task_id:int}", dto=Changes, return_dto=None)
async def change(data: DTOData[Task], task_id: int) -> Task:
    return data.update_instance(tasks[task_id])


app = Telex([add, change])
