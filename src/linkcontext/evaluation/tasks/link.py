"""The default task: episodes of classes, whose names the model links to pictures. Any class-folder data set will do."""

from linkcontext.evaluation.draw import open_drawn
from linkcontext.evaluation.task import Task

LINK = Task(open_drawn)
