"""A host's answer: which of its processes map which BARs, at which level, what that costs and what would mend it; a
capture of it; and what its kernel's log tells of faults."""

from pfnmap.survey.answer import Row, Survey, VmPte, spec_of, survey

__all__ = ["Row", "Survey", "VmPte", "spec_of", "survey"]
