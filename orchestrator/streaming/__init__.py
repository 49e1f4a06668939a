"""The events of a run as they happen, to any number of listeners, at a cost to the database that they don't change.

One reader for each web process looks once a second at the runs that are listened to (hub.py, feed.py); it speaks
Server-Sent Events on connections that Django has let in and let go of (asgi.py), so that a listener holds no thread
and no connection to the database.
"""

from orchestrator.streaming.asgi import AREA, HEADERS, EventStreams
from orchestrator.streaming.feed import Position, Subscription, Viewer, snapshot_events

__all__ = ("AREA", "HEADERS", "EventStreams", "Position", "Subscription", "Viewer", "snapshot_events")
