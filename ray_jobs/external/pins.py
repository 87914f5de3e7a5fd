"""What a person wrote of outside data becomes the list of exactly what will be read."""

from configs.external import (
    EvalSetsSource,
    EvalSetsSpec,
    LabelsSource,
    LabelsSpec,
    PinnedEvalSet,
    PinnedPythonDocumentation,
    PinnedServiceQuestions,
    PinnedTextFiles,
    ReferenceSource,
    ReferenceSpec,
    Urls,
)
from ray_jobs.external import python_documentation, service_questions
from ray_jobs.files.pins import pinned


def pin_reference(source: ReferenceSource) -> ReferenceSpec:
    """As all functions of this module: looks up what the files are now.

    Raises:
        ValueError: a file or package is not there or may not be read; the message says what to do.
        ConnectionError: a server did not answer within the client's patience.
    """
    if source.files is not None:
        return ReferenceSpec(name=source.name, content=PinnedTextFiles.model_validate(_with_files(source.files)))
    assert source.python_documentation is not None, "ReferenceSource has exactly one source"
    content = PinnedPythonDocumentation(
        **source.python_documentation.model_dump(),
        generator=python_documentation.GENERATOR,
        versions=python_documentation.installed_versions(),
    )
    return ReferenceSpec(name=source.name, content=content)


def pin_labels(source: LabelsSource) -> LabelsSpec:
    return LabelsSpec.model_validate(_with_files(source))


def pin_eval_sets(source: EvalSetsSource) -> EvalSetsSpec:
    sets: list[PinnedEvalSet | PinnedServiceQuestions] = []
    for one in source.sets:
        sets.append(PinnedEvalSet.model_validate(_with_files(one)))
    if source.service_questions is not None:
        sets.append(
            PinnedServiceQuestions(
                **source.service_questions.model_dump(),
                generator=service_questions.GENERATOR,
                versions=service_questions.installed_versions(),
            )
        )
    return EvalSetsSpec(sets=tuple(sets))


def _with_files(written: Urls) -> dict[str, object]:
    """The fields, with files in place of their URLs."""
    fields: dict[str, object] = written.model_dump(exclude={"urls"})
    return fields | {"files": pinned(written.urls, written.allowed_hosts)}
