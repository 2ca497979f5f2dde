"""Text as contexts of tokens, for language models."""

from topospike.data.text.contexts import ContextBatches as ContextBatches
from topospike.data.text.contexts import Contexts as Contexts
from topospike.data.text.sources import topics as topics

__all__ = ["ContextBatches", "Contexts", "topics"]
