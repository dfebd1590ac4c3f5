"""GeneFlow (Wang and others): pictures of tissue from expression by rectified flow."""

from .flow import GeneFlow

METHOD = GeneFlow
