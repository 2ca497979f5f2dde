"""Recordings of event cameras, and the frames of counts that networks read."""

from topospike.data.events.array import EVENT as EVENT
from topospike.data.events.array import event_array as event_array
from topospike.data.events.camera import digit_events as digit_events
from topospike.data.events.frames import FrameForm as FrameForm
from topospike.data.events.frames import event_frames as event_frames

__all__ = ["EVENT", "FrameForm", "digit_events", "event_array", "event_frames"]
