"""The whole corpus."""

from __future__ import annotations

from tests.compat import corpus_fields, corpus_services, corpus_types

CASES = (*corpus_fields.CASES, *corpus_types.CASES, *corpus_services.CASES)
