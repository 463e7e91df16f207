"""What TensorBoard shows of runs, read by TensorBoard's own readers."""

from pathlib import Path
from typing import Any

import pytest
from small_runs import metrics, run, small
from tensorboard.backend.event_processing.data_provider import MultiplexerDataProvider
from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer
from tensorboard.context import RequestContext
from tensorboard.plugins.base_plugin import TBContext
from tensorboard.plugins.hparams import api_pb2
from tensorboard.plugins.hparams.backend_context import Context
from tensorboard.plugins.hparams.list_session_groups import Handler

from normexp.trainer.steps import Trainer


def hparams(folder: Path) -> dict[str, tuple[str, dict[str, float]]]:
    """Status and metrics of each row of HPARAMS by its run, as the plugin's backend has them."""
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(folder))
    multiplexer.Reload()
    provider = MultiplexerDataProvider(multiplexer, str(folder))
    context = Context(TBContext(data_provider=provider, flags=None))
    request = RequestContext()
    experiment = context.experiment_from_metadata(
        request, "", True, context.hparams_metadata(request, ""), []
    )
    asked = api_pb2.ListSessionGroupsRequest(
        slice_size=100,
        allowed_statuses=range(api_pb2.STATUS_UNKNOWN, api_pb2.STATUS_RUNNING + 1),
        col_params=[api_pb2.ColParams(metric=info.name) for info in experiment.metric_infos],
    )
    answer: Any = Handler(request, context, "", asked).run()
    return {
        Path(session.name).name: (
            api_pb2.Status.Name(session.status),
            {value.name.tag: value.value for value in session.metric_values},
        )
        for group in answer.session_groups
        for session in group.sessions
    }


def test_hparams_are_those_of_result_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("log.tensorboard=true", "epochs=6", "optimizer.lr=0.02")
    config, good = small(tmp_path, "norm=bn", *asked)
    result = run(config, good)
    # The epoch that was best on validation, which met the test set, is not the last.
    assert result["tested_epoch"] < 6
    assert float(metrics(good)[-1]["val_acc"]) != result["val_acc"]
    config, lost = small(tmp_path, "norm=none", "optimizer=sgd", *asked, "optimizer.lr=1e12")
    assert run(config, lost)["status"] == "diverged"
    # One that goes on after its test was broken off, and one that is still under way.
    monkeypatch.setattr(Trainer, "test", _interrupted)
    config, again = small(tmp_path, "norm=gn", *asked)
    other, under_way = small(tmp_path, "norm=ln", *asked)
    for each in ((config, again), (other, under_way)):
        with pytest.raises(KeyboardInterrupt):
            run(*each)
    monkeypatch.undo()
    second = run(config, again)
    found = hparams(tmp_path)
    for directory, known in ((good, result), (again, second)):
        status, values = found[directory.run_id]
        assert status == "STATUS_SUCCESS"
        assert values == {
            "hparam/val_acc": pytest.approx(known["val_acc"]),
            "hparam/test_acc": pytest.approx(known["test_acc"]),
        }
    assert found[lost.run_id] == ("STATUS_FAILURE", {})
    assert found[under_way.run_id] == ("STATUS_UNKNOWN", {})


def _interrupted(*arguments: object) -> None:
    raise KeyboardInterrupt
